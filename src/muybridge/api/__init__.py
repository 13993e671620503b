"""The service over HTTP: jobs, files and models of it, for programs and for its page. Needs no torch."""
