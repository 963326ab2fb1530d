"""A lock is held by one process, and can be looked at without being taken."""

from mae_lib.records.locks import is_held, locked


def test_to_look_at_a_lock_makes_nothing_and_takes_nothing(tmp_path):
    lock = tmp_path / "folder" / "lock"
    assert not is_held(lock)
    assert not lock.parent.exists()
    with locked(lock):
        assert is_held(lock)
        assert is_held(lock)
    assert not is_held(lock)
    with locked(lock, wait=False):
        pass
