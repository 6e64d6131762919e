"""Sizes for people: bytes in the unit that keeps them short."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(count: int | None) -> str:
    """Return `512B`, `1.5KiB`, `64.0MiB` …; a dash for None."""
    if count is None:
        return "-"
    value = float(count)
    for unit in _UNITS:
        if abs(value) < 1000 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{count}B" if unit == "B" else f"{value:.1f}{unit}"
