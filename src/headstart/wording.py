"""Numbers and names in sentences for people. Standard library only, and little of it: a node imports this."""


def counted(count: int, one: str, more: str = "") -> str:
    """A number of things: 1 entry, 2 entries."""
    return f"{count} {one if count == 1 else more or one + 's'}"


def printable(text: str) -> str:
    """A line for a terminal: what servers, repositories and names say in it must not be able to steer it."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def readable(name: object) -> str:
    r"""A name or a path for a sentence: printable, and no other name looks the same.

    Args:
        name: bytes, as names are; what a damaged database has in their place is shown as Python writes it.

    Returns:
        The name as it is, where all of it is printable UTF-8. Else a byte that is not UTF-8 is written
        ``\xff``, a sign that cannot be printed as in Python (``\n``, ``\u200b``), and a backslash twice.
    """
    if not isinstance(name, bytes):
        return repr(name)
    return printable(name.decode(errors="surrogateescape").replace("\\", "\\\\"))


def _escaped(sign: str) -> str:
    if sign.isprintable():
        return sign
    code = ord(sign)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return sign.encode("unicode_escape").decode()
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
