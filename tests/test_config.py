"""Reading, overriding and refusing configs."""

from pathlib import Path

import pytest

from rayclean.config import Config, Plugin, load_config, parse_config
from rayclean.errors import ConfigError
from rayclean.run import Run
from rayclean.verb_fingerprints import check_plugins

FOLDER = Path(__file__).parent.parent / "configs"
CONFIGS = sorted(path for path in FOLDER.rglob("*.toml") if path.parent.name not in ("sweeps", "cluster"))
MINIMAL = {"dataset": {"path": "data.csv"}}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_valid(path: Path) -> None:
    check_plugins(load_config(path))


def test_overrides_are_typed_and_come_last() -> None:
    config = parse_config(
        MINIMAL, ["detect.budget=7", "dataset.noise.rate=0.4", "annotator.name=simulated", "seed=3"]
    )
    assert config.detect.budget == 7
    assert isinstance(config.detect.budget, int)
    assert config.dataset.noise is not None
    assert config.dataset.noise.rate == 0.4
    assert config.annotator.name == "simulated"
    assert config.seed == 3


def test_an_override_of_an_export_that_is_written_as_its_path(tmp_path: Path) -> None:
    config = parse_config({**MINIMAL, "export": "x.csv"}, ["export.to=y"])
    assert config.export is not None
    assert config.export.to == "y"
    config = parse_config({**MINIMAL, "export": "x.csv"}, ["export.only=changed"])
    assert config.export is not None
    assert (config.export.to, config.export.only) == ("x.csv", "changed")
    (tmp_path / "more.toml").write_text("[export]\noverwrite = true\n")
    config = parse_config(MINIMAL, ["export=x.csv", str(tmp_path / "more.toml")])
    assert config.export is not None
    assert (config.export.to, config.export.overwrite) == ("x.csv", True)


def test_a_section_that_json_writes_as_null_may_be_set() -> None:
    values = {"dataset": {"path": "data.csv", "noise": None}}
    config = parse_config(values, ["dataset.noise.rate=0.4"])
    assert config.dataset.noise is not None
    assert config.dataset.noise.rate == 0.4


def test_the_callers_values_are_not_touched() -> None:
    values = {"dataset": {"path": "data.csv"}}
    parse_config(values, ["dataset.path=other.csv"])
    assert values == {"dataset": {"path": "data.csv"}}


def test_small_float_is_a_number() -> None:
    assert parse_config(MINIMAL, ["train.learning_rate=1e-5"]).train.learning_rate == 1e-5


@pytest.mark.parametrize(
    ("overrides", "fragments"),
    [
        (["detect.budgt=0.1"], ["budgt", "did you mean budget"]),
        (["detcet.budget=0.1"], ["detcet", "did you mean detect"]),
        (["detect.budget=0"], ["'detect.budget': a count must be at least 1, got 0; write", "such as 100"]),
        (["detect.budget=0.0"], ["'detect.budget'", "(0, 1], got 0.0; write a share", "such as 0.1"]),
        (["detect.budget=1.5"], ["(0, 1]"]),
        (
            ["relabel.accept=0.49"],
            ["'relabel.accept': a probability in [0.5, 1]", "got 0.49", "write 0.5 to change"],
        ),
        (["relabel.accept=1.01"], ["'relabel.accept'", "got 1.01"]),
        (["detect.detectors=[]"], ["at least one detector"]),
        (["version=99"], ["version", "99", "CHANGELOG"]),
        (["name=../evil"], ["name"]),
        (["predict.mode=given"], ["path"]),
        (["annotator.max_queries=1", "method=3"], ["method"]),
        (["dataset.labels=['a']"], ["two labels"]),
        (["dataset.test={path='x', share=0.1}"], ["not both"]),
        (["detect"], ["section.key=value"]),
        (["seed.x=1", "seed=1"], []),
        (["train.learning_rate=nan"], ["learning_rate"]),
        (["dataset.delimiter=::"], ["'dataset.delimiter': expected one character", "got '::'"]),
        (["dataset.delimiter="], ["'dataset.delimiter': expected one character"]),
        (["dataset.quote=\"''\""], ["'dataset.quote': expected one character", 'or "" for none']),
        (['dataset.escape="\\n"'], ["'dataset.escape': expected one character"]),
        (["dataset.quote=x", "dataset.escape=x"], ["must be different characters"]),
        (
            ["dataset.encoding=utf-9"],
            ["'dataset.encoding': Python knows no encoding of this name", "got 'utf-9'"],
        ),
    ],
)
def test_wrong_values_are_refused_with_help(overrides: list[str], fragments: list[str]) -> None:
    if not fragments:
        parse_config(MINIMAL, overrides)  # a later override may mend an earlier one
        return
    with pytest.raises(ConfigError) as error:
        parse_config(MINIMAL, overrides)
    for fragment in fragments:
        assert fragment in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "fragment"),
    [
        (["method.name=noiseall"], "unknown method"),
        (["annotator.name=gtp"], "unknown annotator"),
        (
            ["detect.detectors=['posteriro']"],
            r"unknown detector 'posteriro': did you mean posterior\? known: .*conflicting_",
        ),
        (
            ["annotator.price_prompt=1.0"],
            r"price_prompt without a currency: write beside it, .* currency = 'USD'",
        ),
        (
            ["annotator.max_cost=1", "annotator.price_answer=2"],
            r"PosteriorAnnotator: price_answer and max_cost without a currency",
        ),
        (["annotator.max_cost=1", "annotator.currency=USD"], "max_cost needs price_prompt and price_answer"),
        *(
            (["annotator.currency=" + c], rf"'currency': expected three .* 'USD' or 'EUR', got '{c}'$")
            for c in ("usd", "EURO")
        ),
        (["annotator.name=knn", "annotator.nieghbours=3"], "unknown key 'nieghbours'"),
        (["encoder.name=no.such.module:Class"], "cannot import"),
        (["encoder.name=json:NoSuchClass"], "no class"),
    ],
)
def test_wrong_plugins_are_refused_with_help(overrides: list[str], fragment: str) -> None:
    with pytest.raises(ConfigError, match=fragment):
        check_plugins(parse_config(MINIMAL, overrides))


@pytest.mark.parametrize(
    ("override", "delimiter"),
    [("\\t", "\t"), ("tab", "\t"), ('"\\t"', "\t"), (";", ";"), ("'|'", "|")],
)
def test_a_delimiter_is_written_as_a_shell_can(override: str, delimiter: str) -> None:
    assert parse_config(MINIMAL, [f"dataset.delimiter={override}"]).dataset.delimiter == delimiter


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.toml", '[dataset]\npath = "caf\u00e9"\n'),
        ("config.json", '{"dataset": {"path": "caf\u00e9"}}'),
    ],
)
def test_a_byte_order_mark_is_no_part_of_a_config(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, "utf-8-sig")
    assert load_config(tmp_path / name).dataset.path == "caf\u00e9"


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"dataset = [", "not valid TOML"),
        (b"\xff\xfe", "not valid TOML.*save it as UTF-8"),
        (b"a = " + b"[" * 100_000, "not valid TOML"),
        (b"", "'dataset' is required"),
    ],
)
def test_unreadable_files(tmp_path: Path, content: bytes, fragment: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=fragment):
        load_config(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the config"):
        load_config(tmp_path / "none.toml")


def test_resolved_config_round_trips(tmp_path: Path) -> None:
    config = parse_config(
        MINIMAL, ["detect.detectors=['knn_vote']", "encoder.name=bilstm", "encoder.max_length=9"]
    )
    path = tmp_path / "config.json"
    path.write_text(config.model_dump_json())
    assert load_config(path) == config


def test_every_field_has_a_default_or_is_the_path() -> None:
    assert [name for name, field in Config.model_fields.items() if field.is_required()] == ["dataset"]


def test_a_file_laid_over_wins_key_by_key_and_overrides_after_it_win_again(tmp_path: Path) -> None:
    first, second = tmp_path / "run.toml", tmp_path / "cluster.toml"
    first.write_text('[dataset]\npath = "x.csv"\n[cluster]\nworkers = 2\ncpus_per_worker = 3\n')
    second.write_text("[cluster]\nworkers = 4\n[cluster.llm]\nreplicas = 5\n")
    config = load_config(first, [str(second)])
    assert (config.cluster.workers, config.cluster.cpus_per_worker, config.cluster.llm.replicas) == (4, 3, 5)
    assert load_config(first, [str(second), "cluster.workers=6"]).cluster.workers == 6
    assert (
        load_config(first, ["cluster.workers=6", str(second)]).cluster.workers == 4
    )  # in the order they stand


def test_a_file_laid_over_that_is_not_there(tmp_path: Path) -> None:
    first = tmp_path / "run.toml"
    first.write_text('[dataset]\npath = "x.csv"\n')
    with pytest.raises(ConfigError, match=r"cannot read the config .*clutser.toml"):
        load_config(first, ["configs/clutser.toml"])


def test_the_size_of_the_cluster_sizes_the_language_model_and_re_runs_nothing(tmp_path: Path) -> None:
    from rayclean.annotators import build_annotator
    from rayclean.pipeline import open_run
    from rayclean.verb_fingerprints import fingerprints

    data = tmp_path / "x.csv"
    data.write_text("text,label\na,b\nc,d\n")
    values = {"output": str(tmp_path), "dataset": {"path": str(data)}, "annotator": {"name": "served"}}
    small = parse_config(values)
    large = parse_config(values, ["cluster.llm.replicas=3", "cluster.llm.tensor_parallel=2"])
    assert build_annotator(large, ()).config.server.replicas == 3
    assert build_annotator(small, ()).config.server.replicas == 1
    assert fingerprints(small, open_run(small)) == fingerprints(large, open_run(large))


def test_the_prompt_form_follows_from_the_task() -> None:
    """Label words cannot be scored where every candidate is a text of its own."""
    from rayclean.annotators import build_annotator

    values = {"dataset": {"path": "x.csv"}, "annotator": "served", "task": "tagging"}
    assert build_annotator(parse_config(values), ()).config.form == "choice"
    assert build_annotator(parse_config({**values, "task": "multi_label"}), ()).config.form == "label_words"
    with pytest.raises(ConfigError, match=r"form = 'label_words' scores .* set annotator.form = 'choice'"):
        build_annotator(parse_config(values, ["annotator.form=label_words"]), ())


def test_the_currency_of_a_run_is_that_of_all_its_prices(tmp_path: Path) -> None:
    from rayclean.annotators.query_budget import common_currency
    from rayclean.verbs import relabel

    def priced(*currencies: str) -> Config:
        first, *others = [{"name": "simulated", "price_prompt": 1.0, "currency": each} for each in currencies]
        openai = [{**each, "name": "openai", "model": "m", "base_url": "http://none/v1"} for each in others]
        return parse_config(
            {**MINIMAL, "annotator": "knn", "relabel": {"annotators": [first, "knn", *openai]}}
        )

    assert common_currency(parse_config(MINIMAL)) is None
    assert common_currency(priced("EUR")) == common_currency(priced("EUR", "EUR")) == "EUR"
    for check in (common_currency, lambda config: relabel.validate(config, Run(str(tmp_path)))):
        with pytest.raises(
            ConfigError, match=r"those of openai in EUR and those of simulated in USD.*in one currency"
        ):
            check(priced("USD", "EUR"))
    method_asks = priced("USD").model_copy(
        update={"annotator": Plugin(name="knn", price_answer=1.0, currency="CHF")}
    )
    with pytest.raises(ConfigError, match="knn in CHF and those of simulated in USD"):
        common_currency(method_asks)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[dataset]\npath = "C:\\data\\tickets.csv"\n', "write such paths with /"),
        ("[dataset]\npath = \u201ca.csv\u201d\n", "straight quotes"),
        ("[dataset]\npath = 'a.csv'\nheader = False\n", "lower case"),
        ("[dataset]\npath = 'a.csv'\ntruth = null\n", "no null"),
        ("[dataset]\npath = data/a.csv\n", "texts stand in quotes, like"),
        ("dataset:\n  path: a.csv\n", "YAML"),
        ('{"dataset": {"path": "a.csv"}}', "let its name end in .json"),
        ("[dataset]\npath = 'a.csv'\n[dataset]\n", "written once"),
        ("path = 'a.csv'\n", r"unknown key 'path'; it is a key of \[dataset\]: write dataset\.path\. known"),
        (
            "[dataset]\npath = 'a.csv'\ntext = 0\n",
            "'dataset.text': expected a text or a list of texts, got 0$",
        ),
    ],
)
def test_what_is_usually_wrong_with_a_config_is_said(tmp_path, content, message):
    (tmp_path / "my.toml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "my.toml")
