__version__ = "23.0.0"


def __getattr__(name: str) -> object:
    "`v23.connect()`: the desk that runs here, or a temporary one; loaded when it is asked for."
    if name == "connect":
        from v23.desk_client import connect

        return connect
    raise AttributeError(f"module 'v23' has no attribute {name!r}")


def load_ipython_extension(shell: object) -> None:
    "`%load_ext v23`: v23's objects show as tables, and `%v23 COMMAND` is the command line."
    from v23.notebook import load_ipython_extension as load

    load(shell)
