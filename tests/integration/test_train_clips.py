"""From a folder of clips to a LoRA by one command, on the shipped model."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import pytest
import yaml

from muybridge.cli import main as cli
from muybridge.data.settings import DataSettings
from muybridge.errors import ConfigError
from muybridge.pipelines import load_pipeline
from muybridge.training.checkpoints import STATE_FILE
from muybridge.training.damaged_files import damaged_files
from muybridge.training.newcomer import ClipsRun, write_run_file
from muybridge.training.run import check_run
from muybridge.training.run_file import load_run

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "clips" / "make_clips.py"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips") / "jumping things"
    runpy.run_path(str(EXAMPLE))["main"](folder)
    return folder


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as done:
        cli.main([str(each) for each in ("train", *arguments)])
    return int(done.value.code or 0)


def test_one_command_makes_a_lora_and_says_what_it_chose(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--set", "batch_size=1", "--set", "rank=4", "--set", "num_frames=2")
    asked = ("--clips", clips, "--steps", 1, "--trigger", "sks", "--prior", "off", "-o", tmp_path)
    assert run(*asked, *small, "--set", "evaluation.every=null") == 0
    said = capsys.readouterr()
    assert "16 clips and pictures for demo/animatediff" in said.err
    assert "2 clips are held out" in said.err
    assert said.out.strip() == str(tmp_path / "jumping-things.safetensors")

    document = yaml.safe_load((tmp_path / "run.yaml").read_text())
    assert document["data"] == {"sources": [{"path": str(clips), "trigger": "sks"}], "held_out": 0.1}
    assert document["stages"][0]["evaluation"]["prompts"][0].startswith("sks, a red circle jumping")
    assert "14 clips to train on" in (tmp_path / "lora" / "data.txt").read_text()
    assert (tmp_path / "report.html").is_file()

    pipeline = load_pipeline("demo/animatediff")
    pipeline.load_lora_weights(tmp_path / "jumping-things.safetensors")


def test_a_finished_run_is_not_of_other_clips(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "clips"
    own.mkdir()
    for path in sorted(clips.iterdir())[:4]:
        shutil.copy(path, own)
    path, _ = write_run_file(ClipsRun(own, steps=2, prior="off"), tmp_path / "run")
    small = ("batch_size=1", "rank=2", "num_frames=2", "evaluation.every=null")
    asked = (path, "-o", path.parent, *(part for each in small for part in ("--set", each)))
    assert run(*asked, "--until", 1) == 0
    assert run(*asked) == 0
    assert "paused at step 1; the same" in capsys.readouterr().err
    (own / "jumping-00.txt").write_text("something else")
    assert run(*asked) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "is finished, and was trained on other clips, captions or settings" in said


def damage(path: Path) -> None:
    """In the middle of the packets, which a look at the first frame does not see."""
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    middle = (start + len(content)) // 2
    content[middle - 200 : middle + 200] = bytes(400)
    path.write_bytes(content)


def test_a_file_that_turns_out_damaged_is_said_and_listed(
    clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = tmp_path / "clips"
    own.mkdir()
    for path in sorted(clips.iterdir())[:8]:
        shutil.copy(path, own)
    damage(own / "jumping-01.mp4")
    small = ("batch_size=4", "rank=2", "num_frames=2", "evaluation.every=null", "data.max_damaged=0.25")
    settings = [part for each in small for part in ("--set", each)]
    folder = tmp_path / "run"
    assert run("--clips", own, "--steps", 2, "--prior", "off", "-o", folder, *settings) == 0

    said = [record.getMessage() for record in caplog.records if "jumping-01.mp4" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("left out, another clip takes its place: ")
    assert "4 clips to train on" in (folder / "lora" / "data.txt").read_text()
    assert list(damaged_files(folder / "lora")) == [str(own / "jumping-01.mp4")]
    assert "1 file turned out to be damaged and left out" in (folder / "report.html").read_text()


def test_a_look_at_the_clips_trains_nothing(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--set", "batch_size=1", "--set", "num_frames=2", "--set", "rank=2")
    assert run("--clips", clips, "--dry-run", "-o", tmp_path, "--prior", "off", *small) == 0
    said = capsys.readouterr().out
    assert "14 clips to train on" in said
    assert "s a step here" in said
    assert {path.name for path in tmp_path.iterdir()} == {"run.yaml", "data.txt", "data.json", "data.png"}


@pytest.mark.slow
def test_a_look_at_the_clips_is_of_all_stages(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usual = {"steps": 3, "batch_size": 1}
    stages = [
        {"method": "domain-adapter", "rank": 2, **usual},
        {"method": "motion-adapter", "domain_adapter": "domain-adapter", **usual},
    ]
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump({"name": "two", "data": str(clips), "stages": stages}))
    assert run(path, "--dry-run", "-o", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert said.startswith("stage domain-adapter\n\n")
    assert "for 3 steps" in said
    assert "motion-adapter is not looked at: it builds on domain-adapter, which is not trained yet" in said

    first = tmp_path / "one.yaml"
    first.write_text(yaml.safe_dump({"name": "one", "data": str(clips), "stages": stages[:1]}))
    assert run(first, "-o", tmp_path / "out") == 0
    assert run(path, "--dry-run", "-o", tmp_path / "out", "--set", "motion-adapter.num_frames=2") == 0
    said = capsys.readouterr().out
    assert "stage motion-adapter\n\n" in said
    assert "64x64x16" in said
    assert "is not looked at" not in said
    assert (tmp_path / "out" / "motion-adapter" / "data.txt").is_file()


def test_a_run_file_that_somebody_has_changed_is_kept(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ClipsRun(clips)
    path, _ = write_run_file(asked, tmp_path)
    before = path.read_text()
    assert write_run_file(asked, tmp_path)[0] == path
    path.write_text(before.replace("rank: 16", "rank: 4"))
    assert run("--clips", clips, "-o", tmp_path) == 2
    assert "is there and says something else" in " ".join(capsys.readouterr().err.split())
    assert "rank: 4" in path.read_text()


def test_a_refused_try_leaves_nothing_in_the_way(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    for wrong in (("--base", "nosuchfolder"), ("--prior", "nosuchfile.txt")):
        assert run("--clips", clips, *wrong, "-o", folder) == 2
        assert wrong[1] in capsys.readouterr().err
        assert not folder.exists()

    first = write_run_file(ClipsRun(clips, steps=100), folder)[0].read_text()
    path, _ = write_run_file(ClipsRun(clips, steps=200), folder)  # as nobody changed it and nothing was trained
    assert "steps: 100" in first
    assert "steps: 200" in path.read_text()
    (folder / "lora").mkdir()
    (folder / "lora" / STATE_FILE).touch()
    assert write_run_file(ClipsRun(clips, steps=200), folder)[0] == path
    with pytest.raises(ConfigError, match=r"is there and says something else. Go on with it: .*run\.yaml.* --output"):
        write_run_file(ClipsRun(clips, steps=300), folder)


def test_the_run_file_means_the_same_from_anywhere(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clips.parent)
    (clips.parent / "prompts.txt").write_text("a red circle\n")
    asked = ClipsRun(Path(clips.name), prior="prompts.txt")
    path, _ = write_run_file(asked, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    found = load_run(path)
    check_run(found)
    assert isinstance(found.data, DataSettings)
    assert found.data.sources[0].path == str(clips)
    assert found.data.prior is not None
    assert found.data.prior.prompts == str(clips.parent / "prompts.txt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give one, such as runs/lora.yaml, or a folder of clips with --clips"),
        (("--trigger", "sks"), "--trigger goes with --clips FOLDER"),
        (("run.yaml", "--base", "x"), "--base is for training without a run file"),
        (("--clips", "nowhere"), "nowhere"),
        (("--clips", "{clips}", "--method", "dream"), "--method is one of lora, motion, motion-lora; given 'dream'"),
        (("--clips", "{silent}"), "2 of 2 clips have no caption"),
        (("--clips", "{empty}"), "There is nothing to train on in"),
    ],
)
def test_refused(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    for name in ("silent", "empty"):
        (tmp_path / name).mkdir()
    for path in sorted(clips.glob("*.mp4"))[:2]:
        (tmp_path / "silent" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "run.yaml").write_text("name: x")
    places = {"{clips}": str(clips), "{silent}": str(tmp_path / "silent"), "{empty}": str(tmp_path / "empty")}
    assert run(*(places.get(each, each) for each in arguments), "-o", tmp_path / "out") == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
