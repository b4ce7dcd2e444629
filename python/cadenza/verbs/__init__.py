"""The Python verbs of the command line, one file each: `main(argv) -> exit code`."""
