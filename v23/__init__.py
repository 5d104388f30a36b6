__version__ = "23.0.0"


def __getattr__(name: str) -> object:
    "`v23.connect()`: the desk that runs here, or a temporary one; loaded when it is asked for."
    if name == "connect":
        from v23.desk_client import connect

        return connect
    raise AttributeError(f"module 'v23' has no attribute {name!r}")
