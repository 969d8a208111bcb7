"""The grammar of options."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrtc.cli.option_table import Group, Option, nearest, parse, render_help, truth
from pyrtc.cli.run_options import GROUPS, UNAVAILABLE
from pyrtc.errors import UsageError

TABLE = (
    Group(
        "All",
        (
            Option("-i, --interactive", "", "keep standard input"),
            Option("-t, --tty", "", "a terminal"),
            Option("-e, --env", "VAR", "a variable", repeat=True),
            Option("--network, --net", "NAME", "a network"),
            Option("--rm", "", "remove"),
        ),
    ),
)


def test_long_option_takes_value_after_equals_or_from_next_word():
    assert parse(["--network=none"], TABLE).word("--network") == "none"
    assert parse(["--network", "none"], TABLE).word("--network") == "none"
    assert parse(["--network="], TABLE).word("--network") == ""
    assert parse(["--network=a=b"], TABLE).word("--network") == "a=b"


def test_alias_counts_for_the_first_long_name():
    assert parse(["--net", "host"], TABLE).word("--network") == "host"


def test_value_may_look_like_an_option():
    assert parse(["--network", "--rm"], TABLE).word("--network") == "--rm"
    assert parse(["-e", "-t"], TABLE).words("--env") == ("-t",)


@pytest.mark.parametrize("words", [["-eA=1"], ["-e=A=1"], ["-e", "A=1"], ["--env", "A=1"], ["--env=A=1"]])
def test_every_way_to_give_a_short_option_its_value(words):
    assert parse(words, TABLE).words("--env") == ("A=1",)


def test_cluster_of_flags_ends_with_an_option_that_has_a_value():
    parsed = parse(["-iteA=1", "image"], TABLE)
    assert parsed.flag("--interactive") and parsed.flag("--tty")
    assert parsed.words("--env") == ("A=1",)
    assert parsed.arguments == ["image"]


def test_flag_takes_a_truth_value_only_with_equals():
    assert not parse(["--rm=false"], TABLE).flag("--rm", default=True)
    assert parse(["--rm", "false"], TABLE).arguments == ["false"]
    assert not parse(["-t=0"], TABLE).flag("--tty", default=True)
    with pytest.raises(UsageError, match="true or false"):
        parse(["--rm=maybe"], TABLE)


def test_last_word_wins_unless_the_option_repeats():
    parsed = parse(["--net=a", "--network=b", "-e", "X=1", "-e", "Y=2"], TABLE)
    assert parsed.word("--network") == "b"
    assert parsed.words("--env") == ("X=1", "Y=2")


def test_options_end_at_the_first_argument():
    assert parse(["--rm", "image", "--rm", "-x", "--", "y"], TABLE).arguments == ["image", "--rm", "-x", "--", "y"]


def test_options_end_at_two_dashes():
    assert parse(["--rm", "--", "--tty"], TABLE).arguments == ["--tty"]
    assert parse(["a", "--", "--tty"], TABLE, interspersed=True).arguments == ["a", "--tty"]


def test_interspersed_options_follow_arguments():
    parsed = parse(["a", "--rm", "b"], TABLE, interspersed=True)
    assert parsed.flag("--rm") and parsed.arguments == ["a", "b"]


def test_single_dash_is_an_argument():
    assert parse(["-"], TABLE).arguments == ["-"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--ntework"], "unknown option: --ntework; did you mean --network"),
        (["--zzz"], "unknown option: --zzz$"),
        (["-x"], "unknown option: -x in -x"),
        (["-network", "x"], "did you mean --network"),
        (["--network"], "option needs a value: --network NAME"),
        (["-e"], "option needs a value: -e VAR"),
        (["-ite"], "option needs a value: -e VAR"),
    ],
)
def test_errors_say_what_to_do(words, text):
    with pytest.raises(UsageError, match=text):
        parse(words, TABLE)


def test_unavailable_option_is_refused_with_its_reason():
    for words in (["--detach"], ["--detach=true"]):
        with pytest.raises(UsageError, match="option not available: --detach: because"):
            parse(words, TABLE, unavailable={"--detach": "because", "-d": "so"})
    with pytest.raises(UsageError, match="option not available: -d: so"):
        parse(["-itd"], TABLE, unavailable={"--detach": "because", "-d": "so"})


def test_conversion_error_names_option_and_value():
    def refuse(word):
        raise UsageError("it is bad")

    parsed = parse(["--net=x", "-e", "y"], TABLE)
    with pytest.raises(UsageError, match='invalid value "x" for --network, --net: it is bad'):
        parsed.one("--network", refuse)
    with pytest.raises(UsageError, match='invalid value "y" for -e, --env: it is bad'):
        parsed.all("--env", refuse)
    assert parsed.one("--rm", refuse) is None


def test_nearest_suggests_only_what_is_close():
    assert nearest("imges", ["images", "run"]) == "; did you mean images?"
    assert nearest("pull", ["images", "run"]) == ""


def test_truth():
    assert truth("true") and truth("1") and not truth("F")
    with pytest.raises(UsageError):
        truth("yes")


@given(st.lists(st.text(alphabet=string.printable, max_size=12), max_size=8))
def test_any_words_parse_or_are_refused(words):
    try:
        parsed = parse(words, GROUPS, unavailable=UNAVAILABLE)
    except UsageError as error:
        assert str(error)
    else:
        # Nothing after the options is lost or changed.
        assert words[len(words) - len(parsed.arguments) :] == parsed.arguments


@given(st.lists(st.text(), max_size=5), st.text(min_size=1).filter(lambda text: not text.startswith("-")))
def test_words_of_the_command_are_left_alone(command, image):
    assert parse(["--rm", image, *command], TABLE).arguments == [image, *command]


def test_help_shows_every_option_once_and_fits_the_page():
    text = render_help("x", "y", GROUPS)
    for group in GROUPS:
        for option in group.options:
            assert option.help
            assert text.count(f"{option.spelling} {option.metavar}".rstrip()) >= 1
    assert max(map(len, text.splitlines())) <= 120


DOCKERS = """
--add-host --annotation --attach --blkio-weight --blkio-weight-device --cap-add --cap-drop --cgroup-parent --cgroupns
--cidfile --cpu-period --cpu-quota --cpu-rt-period --cpu-rt-runtime --cpu-shares --cpus --cpuset-cpus --cpuset-mems
--detach --detach-keys --device --device-cgroup-rule --device-read-bps --device-read-iops --device-write-bps
--device-write-iops --disable-content-trust --dns --dns-option --dns-search --domainname --entrypoint --env --env-file
--expose --gpus --group-add --health-cmd --health-interval --health-retries --health-start-interval
--health-start-period --health-timeout --hostname --init --interactive --ip --ip6 --ipc --kernel-memory --label
--label-file --link --link-local-ip --log-driver --log-opt --mac-address --memory --memory-reservation --memory-swap
--memory-swappiness --mount --name --network --network-alias --no-healthcheck --oom-kill-disable --oom-score-adj --pid
--pids-limit --platform --privileged --publish --publish-all --pull --quiet --read-only --restart --rm --runtime
--security-opt --shm-size --sig-proxy --stop-signal --stop-timeout --storage-opt --sysctl --tmpfs --tty --ulimit --user
--userns --uts --volume --volume-driver --volumes-from --workdir
"""


def test_options_of_docker_are_there_or_refused_with_a_reason():
    names = {name for group in GROUPS for option in group.options for name in option.spelling.split(", ")}
    assert set(DOCKERS.split()) <= names | set(UNAVAILABLE)


def test_table_has_no_name_twice_and_none_that_is_unavailable():
    names = [name for group in GROUPS for option in group.options for name in option.spelling.split(", ")]
    assert len(names) == len(set(names))
    assert not set(names) & set(UNAVAILABLE)
