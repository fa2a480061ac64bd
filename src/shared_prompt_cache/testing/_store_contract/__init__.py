"""What every store promises, as tests."""

from shared_prompt_cache.testing._store_contract._baseline import BaselinePromises
from shared_prompt_cache.testing._store_contract._cancellation import CancellationPromises
from shared_prompt_cache.testing._store_contract._entries import EntryPromises
from shared_prompt_cache.testing._store_contract._histories import HistoryPromises
from shared_prompt_cache.testing._store_contract._journal import JournalPromises
from shared_prompt_cache.testing._store_contract._leases import LeasePromises
from shared_prompt_cache.testing._store_contract._life import LifePromises
from shared_prompt_cache.testing._store_contract._upkeep import UpkeepPromises
from shared_prompt_cache.testing._store_contract._validity import ValidityPromises

__all__ = ["StoreContract"]


class StoreContract(
    EntryPromises,
    UpkeepPromises,
    ValidityPromises,
    JournalPromises,
    LeasePromises,
    BaselinePromises,
    LifePromises,
    CancellationPromises,
    HistoryPromises,
):
    """The tests that a store has to pass before a cache can rely on it.

    Subclass it in a test module, with a fixture `make_store` that returns a function. Each call of that returns another
    store, not opened, over the same place; each test has a place of its own:

    ```python
    class TestMyStore(StoreContract):
        @pytest.fixture
        def make_store(self, tmp_path):
            return lambda: MyStore(tmp_path / "store.db", max_size_mb=self.max_size_mb)
    ```

    It needs pytest, pytest-asyncio and hypothesis. Time is a `ManualClock` that is given to `open`; nothing sleeps, and
    what a store does on its own account (to tell of changes, to end what a cancelled caller had begun) has five
    seconds.

    Attributes:
        max_size_mb: The limit that `make_store` is to give the stores; 6 or more. None: they have none to test.
        most_remembered: How many invalidations the journal keeps at most.
        survives_closing: Whether what is in the place is still there when all stores over it have been closed.
    """
