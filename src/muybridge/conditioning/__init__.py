"""What the video must obey: text, pictures, masks and other videos. One file a kind of condition in `kinds`."""
