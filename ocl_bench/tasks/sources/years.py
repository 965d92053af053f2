"""Years as the paper words them, coarse enough that one entity's year does not give away another's (appendix A.1)."""


def year_text(year: int) -> str:
    """Up to 1900 the century (`19 century`, `2 century BC`), then the decade (`1920s`), from 2000 on the year."""
    if year <= 1900:
        return f"{(abs(year) + 99) // 100} century{' BC' if year < 0 else ''}"
    return f"{year // 10}0s" if year < 2000 else str(year)
