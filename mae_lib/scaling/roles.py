"""Which column plays which part: the names under which laws look for parameters, data, and so on."""

from collections.abc import Mapping, Sequence

from mae_lib.errors import FitError

# In order: the first name that a table has is taken. Distinct data come before data seen.
ROLES: dict[str, tuple[str, ...]] = {
    "data": (
        *("images", "hours", "n_tokens", "tokens", "sentences", "data_size", "dataset_size"),
        *("data", "d", "examples", "samples", "samples_seen", "seen_examples", "images_seen"),
    ),
    "parameters": (
        *("params_encoder", "n_params", "parameters", "params", "n", "model_size"),
        *("n_params_no_embed", "n_parameters", "num_params"),
    ),
    "resolution": ("resolution", "res", "image_size", "pixels", "r"),
    "epochs": ("epochs", "ep", "passes", "repeats"),
}


def column_of(role: str, factors: Sequence[str], named: Mapping[str, str]) -> str | None:
    """Return the factor that plays a role: the named one, else the first known name; or None."""
    if role in named:
        return named[role] if named[role] in factors else None
    lower = {factor.lower(): factor for factor in reversed(factors)}
    return next((lower[name] for name in ROLES.get(role, ()) if name in lower), None)


def resolve_roles(
    law: str, roles: Sequence[str], factors: Sequence[str], named: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the factors that play `roles`, in that order.

    Raises: FitError naming the roles that no factor plays and the names looked for.
    """
    found = [column_of(role, factors, named) for role in roles]
    missing = [role for role, column in zip(roles, found, strict=True) if column is None]
    if missing:
        looked = "; ".join(f"{role}: {', '.join(ROLES.get(role, ())[:4])}, ..." for role in missing)
        raise FitError(
            f"{law}: needs factors that play {' and '.join(roles)}, got {', '.join(factors)} and "
            f"none for {' and '.join(missing)} ({looked}); name it by roles={{'role': 'column'}}"
        )
    return tuple(column for column in found if column)
