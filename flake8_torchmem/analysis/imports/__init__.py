"""Definitions of other files of a project: found, read, and put beside those of the checked one."""
