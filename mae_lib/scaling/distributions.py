"""Tails and quantiles of Student's t, F and the normal, without the half second of scipy.stats."""

from scipy import special


def t_quantile(p: float, df: float) -> float:
    """Return the value below which Student's t with `df` degrees of freedom lies with chance p."""
    return float(special.stdtrit(df, p))


def f_quantile(p: float, df_1: float, df_2: float) -> float:
    """Return the value below which F(df_1, df_2) lies with chance p."""
    return float(special.fdtri(df_1, df_2, p))


def f_tail(value: float, df_1: float, df_2: float) -> float:
    """Return the chance of F(df_1, df_2) above a value."""
    return float(special.fdtrc(df_1, df_2, value))


def normal_tail(value: float) -> float:
    """Return the chance of a standard normal above a value."""
    return float(special.ndtr(-value))
