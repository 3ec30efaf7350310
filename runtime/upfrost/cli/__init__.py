"""The command `upfrost`: arguments in, lines and exit codes out."""
