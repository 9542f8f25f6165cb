"""The commands of the command line that start from a fit or from nothing, and what all commands share."""
