"""The levels of a factor: values that lie so close together that no law could tell them apart."""

import numpy as np

# A model's parameters change a little with its patch: within a fifth is one level, unless the
# whole factor hardly moves; then within an eighth of its range is.
_SAME, _SHARE = np.log(1.2), 1 / 8


def level_codes(logs: np.ndarray) -> np.ndarray:
    """Number the level of each value from 0 upwards, given natural logs `[n]`.

    A level holds all values within min(ln 1.2, range/8) of its lowest.
    """
    values = np.unique(logs)
    reach = min(_SAME, _SHARE * float(np.ptp(values)))
    starts, number, numbers = values[0], 0, []
    for value in values:
        if value - starts > reach:
            starts, number = value, number + 1
        numbers.append(number)
    return np.array(numbers)[np.searchsorted(values, logs)]


def level_names(logs: np.ndarray) -> dict[int, str]:
    """Name each level by its geometric mean, short enough for a sentence."""
    codes = level_codes(logs)
    return {int(c): f"{np.exp(logs[codes == c].mean()):.4g}" for c in np.unique(codes)}
