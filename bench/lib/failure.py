"""What ends a program that nobody catches it in; in the benchmark it ends a row, and the others go on."""


class Failure(SystemExit):
    """Its message is for who runs the benchmark."""
