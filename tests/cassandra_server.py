"""A throw-away Apache Cassandra for tests: Maven's jars, kept in `.cache`; a folder of its own, gone at the end."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.once import alone
from tests.server_process import HOST, ServerProcess, free_ports, running

HERE = Path(__file__).resolve().parent
CONFIGURATION = HERE / "cassandra"
CACHE = HERE.parent / ".cache"
KEYSPACE = "lotse"


class CassandraServer(ServerProcess):
    """One node, which is the whole cluster; the keyspace of its URL is for the test to make."""

    def answers(self) -> bool:
        """Whether it speaks CQL."""
        with socket.create_connection((HOST, self.port), timeout=5) as client:
            client.sendall(bytes([4, 0, 0, 0, 5, 0, 0, 0, 0]))  # OPTIONS of version 4
            return client.recv(9)[4:5] == bytes([6])  # SUPPORTED


def java() -> Path:
    """The one Java that `cassandra/jvm.options` is for.

    Raises
    ------
    RuntimeError
        It is not installed.
    """
    for found in Path("/usr/lib/jvm").glob("java-17-openjdk*/bin/java"):
        return found
    raise RuntimeError("no Java 17 is installed; run: apt-get install openjdk-17-jdk-headless")


@contextmanager
def cassandra_server(**settings: Any) -> Iterator[CassandraServer]:
    """An empty node; `settings` go into its cassandra.yaml.

    Like any server that is not told otherwise, it acknowledges before it writes to the disk and loses the last moments
    when it is killed; `cassandra_server(commitlog_sync="batch")` loses nothing.
    """
    jars = _jars()
    with tempfile.TemporaryDirectory(prefix="cassandra-") as name:
        folder = Path(name)
        port, storage_port = free_ports(2)
        yaml = folder / "cassandra.yaml"
        yaml.write_text(json.dumps(_yaml(port, storage_port, settings)))  # every JSON file is a YAML file
        command = [
            java(), f"@{CONFIGURATION / 'jvm.options'}",
            f"-javaagent:{next(jars.glob('jamm-*.jar'))}",
            f"-Djava.io.tmpdir={folder}",
            f"-Dlogback.configurationFile={CONFIGURATION / 'logback.xml'}",
            f"-Dcassandra.config={yaml.as_uri()}",
            f"-Dcassandra.storagedir={folder}",
            "-classpath", f"{jars}/*", "org.apache.cassandra.service.CassandraDaemon",
        ]  # fmt: skip
        with running(CassandraServer(command, folder, port, f"cassandra://{HOST}:{port}/{KEYSPACE}")) as server:
            yield server


def _yaml(port: int, storage_port: int, settings: dict[str, Any]) -> dict[str, Any]:
    """A node alone; where its files are is said when it starts."""
    seeds = [{"seeds": f"{HOST}:{storage_port}"}]
    sync = {} if "commitlog_sync" in settings else {"commitlog_sync": "periodic", "commitlog_sync_period": "10s"}
    return {
        "cluster_name": "throw-away",
        "partitioner": "Murmur3Partitioner",
        "endpoint_snitch": "SimpleSnitch",
        "seed_provider": [{"class_name": "org.apache.cassandra.locator.SimpleSeedProvider", "parameters": seeds}],
        "num_tokens": 1,
        "listen_address": HOST,
        "storage_port": storage_port,
        "rpc_address": HOST,
        "native_transport_port": port,
        "auto_snapshot": False,
        "hinted_handoff_enabled": False,
        "dynamic_snitch": False,
        **sync,
        **settings,
    }


def _jars() -> Path:
    """The folder of the jars that the pom asks for: loaded the first time, and again when the pom has changed."""
    pom, jars = CONFIGURATION / "pom.xml", CACHE / "cassandra"
    loaded = jars / "pom.xml"
    with alone(CACHE / "cassandra.lock"):
        if not (loaded.is_file() and loaded.read_bytes() == pom.read_bytes()):
            _load(pom, jars)
            shutil.copy(pom, loaded)
    return jars


def _load(pom: Path, jars: Path) -> None:
    if not shutil.which("mvn"):
        raise RuntimeError("Maven is not installed; run: apt-get install maven")
    shutil.rmtree(jars, ignore_errors=True)
    command = ["mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def make_keyspace(port: int) -> None:
    """The keyspace of a server's URL, as its operator makes it."""
    from cassandra.cluster import Cluster  # noqa: PLC0415

    with Cluster([HOST], port=port) as cluster, cluster.connect() as session:
        replication = "{'class': 'SimpleStrategy', 'replication_factor': 1}"
        session.execute(f"CREATE KEYSPACE {KEYSPACE} WITH replication = {replication}")
