"""What the faces of the program share: the schema of requests and run files, and the code that carries them out."""
