"""What those who work on this project use; none of it is in what users install."""
