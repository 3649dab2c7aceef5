"""What make does on the host: build the images, run the labs, say what is wrong. Standard library only."""
