"""Whether a study can end in a law and a prediction, known before any cell is trained."""

from mae_lib.cost import cost_of
from mae_lib.errors import StudyError
from mae_lib.study.definition import Study
from mae_lib.study.models import model_shape


def require_fittable(study: Study) -> None:
    """Refuse a grid whose law could not be fitted, or would be asked about no point.

    The law is of the plain encoders where a study also has some with a convolutional stem, as in
    `results.law_table`. Raises: StudyError with the field to change.
    """
    if not study.targets:
        raise StudyError(
            f"{study.name}: targets: none, so its laws would be asked about no point; "
            "name one: {name, images, params_encoder, resolution}"
        )
    plain = [cell for cell in study.cells if model_shape(cell.model).stem is None]
    cells = plain or list(study.cells)
    levels = {
        "models": {cost_of(cell).params_encoder for cell in cells},
        "images": {cell.images for cell in cells},
        "resolutions": {cell.resolution for cell in cells},
    }
    if fixed := [name for name, values in levels.items() if len(values) < 2]:
        raise StudyError(
            f"{study.name}: grid: {fixed[0]}: one level, so no law can be fitted to it; give a "
            "second one, or train its cells alone by `--cells ID,ID`"
        )
