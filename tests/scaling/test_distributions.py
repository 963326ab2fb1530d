"""Tails and quantiles equal scipy.stats, and importing the fit does not import it."""

import subprocess
import sys

import pytest
from scipy import stats

from mae_lib.scaling.distributions import f_quantile, f_tail, normal_tail, t_quantile


@pytest.mark.parametrize("df", [1, 3, 12, 200])
def test_they_equal_scipy_stats(df):
    for p in (0.5, 0.9, 0.975, 0.999):
        assert t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-9, abs=1e-12)
        assert f_quantile(p, 3, df) == pytest.approx(stats.f.ppf(p, 3, df), rel=1e-9)
    for value in (0.1, 1.0, 4.4, 30.0):
        assert f_tail(value, 5, df) == pytest.approx(stats.f.sf(value, 5, df), rel=1e-9)
        assert normal_tail(value) == pytest.approx(stats.norm.sf(value), rel=1e-9)


def test_what_describes_a_fit_does_not_load_scipy_stats():
    modules = ("table", "read", "uncertainty", "identify", "notes", "distributions")
    names = ", ".join(f"mae_lib.scaling.{name}" for name in modules)
    code = f"import sys, {names}; sys.exit('scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
