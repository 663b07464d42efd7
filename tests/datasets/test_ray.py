"""Runs on Ray: the rows are those of one machine, whatever ends a process, a node or the driver."""

import os
import signal
import time

import psutil
import pytest

import relume
from tests.helpers.clusters import actors, begin_on_ray, finished, rows_done
from tests.helpers.runs import assert_same, run_scenes

ray = pytest.importorskip("ray")

COUNT = 200


@pytest.fixture
def cluster():
    """A cluster of two nodes on this machine; the second is the one that a test may remove."""
    from ray.cluster_utils import Cluster

    node = {"object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"num_cpus": 3})
    cluster.second = cluster.add_node(**node | {"num_cpus": 2})
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run_scenes(COUNT, tmp_path_factory.mktemp("undisturbed") / "run", part_size=20, source=Lethal(COUNT))


@pytest.mark.slow
def test_killed_actors_a_removed_node_and_a_killed_driver_lose_nothing(cluster, undisturbed, tmp_path):
    folder = tmp_path / "run"
    driver = begin_on_ray(COUNT, folder, cluster.address)
    rows_done(driver, 20)
    actors()[0].kill()
    rows_done(driver, 80)
    driver.kill()
    driver.communicate()
    driver = begin_on_ray(COUNT, folder, cluster.address)
    assert 0 < rows_done(driver, 0) < COUNT
    cluster.remove_node(cluster.second)
    rows_done(driver, 120)
    cluster.add_node()
    finished(driver)
    assert_same(relume.Run.load(folder), undisturbed)
