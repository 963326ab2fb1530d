"""A piece's worker that trains nothing: what it does with a cell is in the cell's seed."""

import os
import time

from measured_pieces import record_of

from mae_lib.records.atomic import write_text
from mae_lib.records.sealed import write_sealed
from mae_lib.study.paths import RunPaths
from mae_lib.study.plain import read_study
from mae_lib.training.piece_time import Answer

WELL, DIES, HUNGRY, SLOW, WRONG = range(5)


def serve(link, study_file, out, extras):
    study = read_study(study_file)
    while True:
        try:
            cell = study.cell(link.recv())
        except EOFError:
            return
        folder = RunPaths.of(out).cell(cell.id)
        if cell.seed == DIES:
            os._exit(9)
        if cell.seed == SLOW:
            time.sleep(60)
        if cell.seed == WRONG:
            link.send(Answer(cell.id, {}, "crop: a shape that is not there"))
            continue
        if cell.seed == HUNGRY and not (folder / "asked").exists():
            write_text(folder / "asked", "")
            link.send(Answer(cell.id, {}, "out of memory", memory=True))
            continue
        write_text(folder / "metrics.jsonl", "{}\n")
        write_sealed(folder / "record.json", record_of(cell, 0.1))
        seconds = {"train": 0.1, "baselines": 0.0, "total": 0.1, "peak_memory_bytes": None}
        link.send(Answer(cell.id, seconds))
