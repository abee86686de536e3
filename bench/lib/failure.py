"""What ends a program that nobody catches it in; in the benchmark it ends a row, and the others go on."""


class Failure(SystemExit):
    """Its message is for who runs the benchmark."""


ANY = (Failure, Exception) # of a row: connections that break, a load that says something else than ever before


def reason(why):
    """A line."""
    text = str(why).strip().split("\n", maxsplit=1)[0]
    return text if isinstance(why, Failure) else f"{type(why).__name__}: {text}"
