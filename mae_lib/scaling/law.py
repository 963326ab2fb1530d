"""What a law is: formula, parameters, limits, and the design that it is bound to before a fit.

A law maps parameters `[..., k]` and centred logs `z` `[n, m]` to values `[..., n]` and gives its
Jacobian `[..., n, k]`; leading axes are refits of a bootstrap or starts of a search.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from mae_lib.errors import FitError
from mae_lib.scaling.roles import resolve_roles

Evaluate = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
Names = Callable[[tuple[str, ...]], tuple[str, ...]]


@dataclass(frozen=True)
class Design:
    """The rows a law is fitted to, on the law's own scale: accuracy, error, or loss.

    `z` are the centred logs `[n, m]` of `factors`; `y` `[n]`; `chance` is the accuracy of guessing.
    """

    factors: tuple[str, ...]
    z: np.ndarray
    y: np.ndarray
    kind: str = "accuracy"
    chance: float = 0.0


Limits = Callable[[Design], tuple[np.ndarray, np.ndarray]]


def level_and_slopes(factors: tuple[str, ...]) -> tuple[str, ...]:
    """Name a level and one slope a factor."""
    return ("level", *(f"per_ln_{name}" for name in factors))


@dataclass(frozen=True)
class Law:
    """A law. Only `name`, `formula`, `source` and `evaluate` must be given.

    `factors`: the columns it uses, None for all; `roles`: parts that factors must play (roles.py),
    `others`: whether it also uses the rest, after those. `response`: the scale it lives on, error
    for a "loss" law on a table of accuracies. `parameters` names them; `limits` bounds them, `box`
    is where a search starts. `basis` makes a law separable: its first `linear(m)` parameters are
    amplitudes of the basis, kept at or above 0 where `signed`. `bind` finishes a law on a design.
    `levels_needed`: distinct levels that `levels_of` ("every", "one" or "first") factor needs before
    the law says anything of its shape.
    """

    name: str
    formula: str
    source: str
    evaluate: Evaluate
    factors: tuple[str, ...] | None = None
    note: str = ""
    response: str = "any"
    levels_needed: int = 2
    levels_of: str = "every"
    ceiling: str | None = None
    identifiable: str = "all parameters, where the design has full rank"
    roles: tuple[str, ...] = ()
    others: bool = False
    parameters: Names = level_and_slopes
    limits: Limits | None = None
    box: Limits | None = None
    basis: Evaluate | None = None
    linear: Callable[[int], int] = field(default=lambda m: 0)
    signed: bool = False
    uncentred: tuple[str, ...] = ()
    bind: Callable[["Law", Design], "Law"] | None = None
    dropped: tuple[str, ...] = ()
    named: Mapping[str, str] = field(default_factory=dict)

    def used(self, factors: tuple[str, ...]) -> tuple[str, ...]:
        """Return the factors of a table that the law uses, those that play its roles first.

        Raises: FitError when one that it needs is missing.
        """
        if self.factors is not None:
            if missing := [name for name in self.factors if name not in factors]:
                raise FitError(
                    f"{self.name}: needs the factor {missing[0]}, got {', '.join(factors)}"
                )
            return self.factors
        if not self.roles:
            return tuple(factors)
        found = resolve_roles(self.name, self.roles, factors, self.named)
        rest = tuple(name for name in factors if name not in found) if self.others else ()
        return (*found, *rest)

    def names(self, factors: tuple[str, ...]) -> tuple[str, ...]:
        """Return the parameters' names on a table's factors."""
        return self.parameters(self.used(factors))

    def with_roles(self, named: Mapping[str, str] | None) -> "Law":
        """Return the law with columns named for its roles."""
        return replace(self, named=dict(named)) if named else self

    def bound(self, design: Design) -> "Law":
        """Return the law made ready for a design: terms dropped, cells named, chance filled in."""
        return self.bind(self, design) if self.bind else self

    def bounds(self, design: Design) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper limits of the parameters, each `[k]`."""
        if self.limits:
            return self.limits(design)
        k = len(self.parameters(design.factors))
        return np.full(k, -np.inf), np.full(k, np.inf)

    def start_box(self, design: Design) -> tuple[np.ndarray, np.ndarray]:
        """Return the box that a search starts in; by default one level and slopes about 0."""
        if self.box:
            return self.box(design)
        k = len(self.parameters(design.factors))
        low, high = np.quantile(design.y, [0.05, 0.95])
        slope = 1 / np.maximum(np.ptp(design.z, axis=0), 1e-12)
        slopes = np.concatenate([slope, np.ones(max(k - 1 - len(slope), 0))])[: k - 1]
        return np.concatenate([[low], -slopes]), np.concatenate([[high], slopes])


def separable(basis: Evaluate, linear: Callable[[int], int]) -> Evaluate:
    """Make `evaluate` of a basis: value = Phi(theta) c, parameters (c, theta).

    `basis(theta [..., q], z)` gives Phi `[..., n, p]` and its derivative `[..., n, p, q]`.
    """

    def evaluate(params: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p = linear(z.shape[1])
        amplitudes = params[..., None, :p]
        phi, slope = basis(params[..., p:], z)
        value = (phi * amplitudes).sum(-1)
        curved = (slope * amplitudes[..., None]).sum(-2)
        phi = np.broadcast_to(phi, (*value.shape, p))
        curved = np.broadcast_to(curved, (*value.shape, curved.shape[-1]))
        return value, np.concatenate([phi, curved], -1)

    return evaluate


def numeric(value: Callable[[np.ndarray, np.ndarray], np.ndarray], step: float = 1e-6) -> Evaluate:
    """Give a law of one's own a Jacobian by central differences, where none is written down.

    Error: about step^2, so noise-free data are recovered to 1e-6 and not to 1e-8.
    """

    def evaluate(params: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        columns = []
        for j in range(params.shape[-1]):
            moved = np.zeros(params.shape[-1])
            moved[j] = 1.0
            width = step * (1 + np.abs(params[..., j : j + 1]))
            up, down = value(params + width * moved, z), value(params - width * moved, z)
            columns.append((up - down) / (2 * width))
        return value(params, z), np.stack(columns, -1)

    return evaluate
