"""The commands of the command line, one function each; it takes the arguments behind the command's name."""
