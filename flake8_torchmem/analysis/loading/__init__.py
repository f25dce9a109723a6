"""Where data comes from and which device it is on."""
