from hypothesis import given
from hypothesis import strategies as st

from pyrtc.image.config import Healthcheck, ImageConfig

_words = st.lists(st.text(max_size=5), max_size=3).map(tuple)
_pairs = st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=3).map(tuple)
_configs = st.builds(
    ImageConfig,
    env=_pairs,
    entrypoint=st.none() | _words,
    cmd=st.none() | _words,
    user=st.text(max_size=5),
    workdir=st.text(max_size=5),
    volumes=_words,
    labels=_pairs,
    ports=_words,
    stop_signal=st.none() | st.text(min_size=1, max_size=5),
    shell=st.none() | _words,
    healthcheck=st.none()
    | st.builds(
        Healthcheck,
        _words,
        interval=st.floats(0, 1e6),
        retries=st.integers(0, 9),
        start_interval=st.floats(0, 1e6),
    ),
)


@given(_configs)
def test_round_trip(config: ImageConfig) -> None:
    assert ImageConfig.loads(config.dumps()) == config


def test_a_check_that_an_older_version_kept_has_no_start_interval() -> None:
    kept = '{"healthcheck":[["CMD","a"],1.5,2.0,3.0,4]}'
    assert ImageConfig.loads(kept).healthcheck == Healthcheck(("CMD", "a"), 1.5, 2.0, 3.0, 4)


def test_defaults_take_no_space() -> None:
    assert ImageConfig().dumps() == "{}"
