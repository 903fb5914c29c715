"""The commands, declared: names, arguments and help, one module for each stretch of the journey."""
