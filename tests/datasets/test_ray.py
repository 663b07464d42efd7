"""Runs on Ray: the rows are those of one machine, whatever ends a process, a node or the driver."""

import os
import pickle
import signal
import socket
import subprocess
import sys
import time

import pytest

import relume
from relume.datasets import RunRequest
from relume.datasets.ray import OnRay
from relume.datasets.storage import storage_of
from relume.datasets.tally import Tally
from relume.engine.preparation import preparation_of
from relume.errors import InputError
from tests.helpers import objects
from tests.helpers.clusters import Lethal, actors, begin_on_ray, finished, rows_done
from tests.helpers.runs import Scenes, assert_same, run_scenes

pytest.importorskip("ray")

COUNT = 200
NODE = {"object_store_memory": 100 * 2**20, "include_dashboard": False}


def test_a_run_on_ray_has_the_rows_of_one_machine(tmp_path):
    run = finished(begin_on_ray(20, tmp_path / "run", actors=1), tmp_path / "run")
    alone = run_scenes(20, tmp_path / "alone")
    assert_same(run, alone)
    assert run.table().schema.equals(alone.table().schema, check_metadata=True)
    assert [row["id"] for row in run.table().to_pylist() if row["error"]] == ["9", "19"]
    assert run.explanation("3")["gradcam"].shape == (1, 16, 16)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["manifest.parquet", "parts", "run.json"]


def test_what_is_sent_to_a_node_opens_the_network_prepares_it_and_sees_that_the_first_picture_can_be_read(tmp_path):
    run, demo = run_scenes(3, tmp_path / "run"), relume.open_model("demo", "cpu")
    work = OnRay(
        demo,
        Scenes(10),
        RunRequest(),
        storage_of(run.folder),
        run.manifest,
        (1, 1),
        6,
        4,
        2,
        None,
        {"id": "0"},
        actors=1,
        gpus=0,
    )
    job = pickle.loads(pickle.dumps(work._job()))
    assert (job.opened.model, len(job.manifest)) == (None, 0)
    job.run = run.record["configuration_hash"]
    job.open()
    assert preparation_of(job.opened.model) is not None
    job.example = {"id": "9"}
    with pytest.raises(InputError, match="it cannot read '9': scene 9 is not drawn; see that all nodes reach the source"):
        job.open()


def test_what_cannot_be_sent_to_a_cluster_is_refused_before_anything_is_written(tmp_path):
    demo = relume.open_model("demo", "cpu")

    def refusal(model="demo", source=None, **options):
        with pytest.raises(InputError) as error:
            relume.run(model, source or Scenes(3), tmp_path / "run", **{"on": "ray", "methods": ["gradcam"]} | options)
        assert not (tmp_path / "run").exists()
        return str(error.value)

    assert "write a function that returns it and give 'package.module:function'" in refusal(
        demo.model, preprocessing=demo.preprocessing
    )
    assert "leave preparing it to the run" in refusal(demo.prepared(Scenes(1).read({"id": "0"})))
    assert "is in the memory of this process, where no node reads it" in refusal(source=[Scenes(1).read({"id": "0"})])
    assert "divides the work by itself" in refusal(shard=(1, 2))
    assert "those of a cluster; leave them out" in refusal(on="local", actors=2)
    assert "actors is a number from 1 on" in refusal(actors=0)
    assert "there is no engine 'rya'; did you mean 'ray'?" in refusal(on="rya")
    assert "no cluster of Ray answers at '127.0.0.1:9'" in refusal(address="127.0.0.1:9")
    assert "is for Ray's client" in refusal(address="ray://127.0.0.1:10001")


def test_without_ray_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"which is not installed; run: pip install 'relume\[ray\]'"):
        relume.run("demo", Scenes(3), tmp_path / "run", on="ray")


def test_the_tally_counts_a_task_once_and_knows_what_killed_it():
    tally = Tally()
    assert tally.start("first", ["a", "b", "c"]) == [0, 0, 0]
    tally.begin(["a", "b"])
    tally.end("first", ["a", "b"], errors=1)
    tally.begin(["c"])
    assert tally.state() == (2, 1, None)
    assert tally.start("first", ["a", "b", "c"]) == [0, 0, 1]  # its process was killed
    assert tally.state() == (0, 0, None)
    tally.begin(["c"])
    assert tally.start("first", ["c"]) == [2]
    tally.begin(["a"])
    tally.end("first", ["c"], errors=1)
    assert tally.start("first", ["a", "c"]) == [1, 2]  # it is known also after its row was made


# --- Two nodes -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster():
    """A cluster of two nodes on this machine; the second is the one that a test may remove."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 3})
    cluster.second = cluster.add_node(**NODE | {"num_cpus": 3})
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run_scenes(COUNT, tmp_path_factory.mktemp("undisturbed") / "run", part_size=20, source=Lethal(COUNT))


@pytest.mark.slow
def test_killed_actors_a_removed_node_and_a_killed_driver_lose_nothing(cluster, undisturbed, tmp_path):
    folder = tmp_path / "run"

    def told(event):
        sys.stdout.write(f"{event}: {len(relume.Run.load(folder))} of {COUNT} rows on disk\n")

    driver = begin_on_ray(COUNT, folder, cluster.address)
    rows_done(driver, 20)
    told("an actor killed")
    actors()[0].kill()
    rows_done(driver, 80)
    driver.kill()
    driver.communicate()
    told("the driver killed")
    assert 0 < len(relume.Run.load(folder)) < COUNT
    driver = begin_on_ray(COUNT, folder, cluster.address)
    rows_done(driver, 120)
    told("a node removed")
    cluster.add_node(**NODE | {"num_cpus": 3})
    cluster.remove_node(cluster.second)
    run = finished(driver, folder)
    told("the end")
    assert_same(run, undisturbed)
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.parquet", "parts", "run.json"]


@pytest.mark.slow
def test_a_picture_that_kills_its_process_twice_is_a_row_with_an_error(undisturbed, tmp_path):
    run = finished(begin_on_ray(COUNT, tmp_path / "run", lethal="0,17,125"), tmp_path / "run")
    errors = {row["id"]: row["error"] for row in run if row["error"] and not row["id"].endswith("9")}
    assert {*errors} == {"0", "17", "125"}  # in whichever order the files were written
    assert all("was killed twice, by this picture or for lack of memory" in error for error in errors.values())
    others = {row["id"]: row["gradcam_map"] for row in undisturbed if row["id"] not in errors}
    assert {row["id"] for row in run if row["gradcam_map"]} == {key for key, value in others.items() if value}


@pytest.mark.slow
def test_engines_go_on_with_the_rows_of_each_other(undisturbed, tmp_path):
    """A shard, then Ray, interrupted once; Ray after files are lost, damaged, doubled and half-written; then one machine."""
    folder, options = tmp_path / "run", {"model": "demo", "source": Lethal(COUNT), "part_size": 20}
    assert len(run_scenes(COUNT, folder, shard=(1, 2), **options)) == COUNT // 2
    driver = begin_on_ray(COUNT, folder, actors=1)
    rows_done(driver, COUNT // 2 + 40)
    driver.send_signal(signal.SIGINT)
    states, _ = driver.communicate()
    assert driver.returncode == -signal.SIGINT
    assert int(states.split()[-1]) == len(relume.Run.load(folder)) < COUNT
    assert not actors()
    finished(begin_on_ray(COUNT, folder, actors=1), folder)
    parts = folder / "parts"
    (parts / "part-000000.parquet").unlink()
    written = sorted(path for path in parts.iterdir() if not path.name.startswith("part-"))
    written[0].write_bytes(written[0].read_bytes()[:-50])
    (parts / "part-000004.parquet").write_bytes(written[1].read_bytes() + b"")
    (parts / "half.parquet").write_bytes(b"PAR1")
    assert_same(finished(begin_on_ray(COUNT, folder, actors=1), folder), undisturbed)
    assert not (parts / "half.parquet").exists()
    before = sorted(path.name for path in parts.iterdir())
    assert_same(run_scenes(COUNT, folder, **options), undisturbed)
    assert sorted(path.name for path in parts.iterdir()) == before
    next(path for path in parts.iterdir() if not path.name.startswith("part-")).unlink()
    assert_same(run_scenes(COUNT, folder, **options), undisturbed)


@pytest.mark.slow
def test_a_run_into_object_storage_survives_its_driver(undisturbed, monkeypatch):
    files = objects.use(monkeypatch)
    files.mkdir("ray-runs")
    driver = begin_on_ray(COUNT, "s3://ray-runs/run")
    rows_done(driver, 60)
    driver.kill()
    driver.communicate()
    assert_same(finished(begin_on_ray(COUNT, "s3://ray-runs/run"), "s3://ray-runs/run"), undisturbed)
    assert sorted(name.rpartition("/")[2] for name in files.ls("ray-runs/run")) == ["manifest.parquet", "parts", "run.json"]


@pytest.mark.slow
def test_bad_input_on_a_cluster_is_a_sentence_within_a_minute(cluster, tmp_path):
    (tmp_path / "photos").mkdir()
    for seed in range(3):
        Scenes(3).read({"id": str(seed)}).picture.save(tmp_path / "photos" / f"{seed}.png")
    (tmp_path / "elsewhere.py").write_text(
        "import os, torch, relume\n\n\ndef network():\n    opened = relume.open_model('demo', 'cpu')\n"
        "    if 'HERE' not in os.environ:\n        torch.nn.init.zeros_(next(opened.model.parameters()))\n    return opened\n"
    )

    paths = {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))}

    def relume_run(*options, output="run", begin="pass", model="demo"):
        code = f"import sys; {begin}; from relume.cli import main; sys.argv[0] = 'relume'; main()"
        command = [sys.executable, "-c", code, "run", "photos", "--model", model, "--method", "gradcam", "--output", output]
        return subprocess.run(
            [*command, *options], cwd=tmp_path, env=os.environ | paths, capture_output=True, text=True, check=False
        )

    def refused(*options, **others):
        began = time.monotonic()
        result = relume_run("--on", "ray", "--address", cluster.address, *options, **others)
        sentence = result.stderr.splitlines()[-1]
        sys.stdout.write(f"{time.monotonic() - began:.0f} s: {sentence}\n")
        assert (result.returncode, result.stdout) == (2, ""), result
        return sentence

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert f"no cluster of Ray answers at '{address}'" in refused("--address", address)
    assert "the cluster has 6 CPUs, and 9 actors need 11" in refused("--actors", "9")
    assert "and this process Ray 2.0.0 and Python" in refused(begin="import ray; ray.__version__ = '2.0.0'")
    assert "does not see the run in 'memory://run'" in refused(output="memory://run")
    assert "opens a network of other weights there" in refused(
        begin="import os; os.environ['HERE'] = '1'", model="elsewhere:network", output="other"
    )
    assert relume_run("--limit", "1").returncode == 0
    (tmp_path / "run" / "parts" / "part-000000.parquet").unlink()
    (tmp_path / "run" / "checkpoint").mkdir()
    (tmp_path / "run" / "checkpoint" / "other.parquet").touch()
    assert "is of another run; remove 'checkpoint' and 'checkpoint.json'" in refused("--limit", "1")
