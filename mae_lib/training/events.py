"""The loss curve as TensorBoard events, where a study asks for them."""

from pathlib import Path

from mae_lib.errors import MaeError

# Of a log line: what is a curve.
SCALARS = ("loss", "lr", "grad_norm", "images_per_s", "mfu", "data_share", "launch_share")


class Events:
    """Writes scalars to `folder`; the first row of a resumed run purges what a cut one wrote after it.

    Raises: MaeError when the package tensorboard is not installed.
    """

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MaeError(
                f"execution.tensorboard: the package {error.name} is missing; "
                "install the extra `tensorboard`, or set it to false",
                exit_code=2,
            ) from None
        self._folder, self._open, self._writer = folder, SummaryWriter, None

    def log(self, row: dict) -> None:
        """Write what a row of the loss curve or of the k-NN curve holds of scalars."""
        if self._writer is None:
            self._writer = self._open(self._folder, purge_step=row["step"])
        for name in SCALARS:
            if row.get(name) is not None:
                self._writer.add_scalar(f"training/{name}", row[name], row["step"])
        if "top1" in row:
            self._writer.add_scalar(f"knn/{row['task']}", row["top1"], row["step"])

    def close(self) -> None:
        """Write out what is buffered."""
        if self._writer is not None:
            self._writer.close()
