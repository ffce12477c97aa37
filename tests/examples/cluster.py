"""A Slurm of one node with four GPUs that are none, on the loopback interface, for as long as a test needs it."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 Gres=gpu:4 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """What a cluster lacks on this machine."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"Slurm is not installed: no {', '.join(missing)}"
    return None if os.geteuid() == 0 else "Slurm's daemons have to be started by root"


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Starts the three daemons; the environment in which Slurm's commands reach them."""
    host = socket.gethostname().partition(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    for i in range(4):
        (folder / f"gpu{i}").touch()
    (folder / "gres.conf").write_text(f"AutoDetect=off\nName=gpu File={folder}/gpu[0-3]\n")
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(host=host, folder=folder, ports=free_ports(2)))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    munge = [
        f"--{name}={folder}/munge.{name.partition('-')[0]}" for name in ("socket", "key-file", "pid-file", "seed-file")
    ]
    with ExitStack() as daemons:
        start(daemons, "munged", "--foreground", "--force", *munge)
        wait_for_file(folder / "munge.socket")
        for program in ("slurmctld", "slurmd"):
            start(daemons, program, "-D", "-f", str(configuration))
        environment = os.environ | {"SLURM_CONF": str(configuration)}
        deadline = time.monotonic() + 30
        while "idle" not in ask(environment, "sinfo", "--noheader", "--format=%T"):
            assert time.monotonic() < deadline, "the node does not come up"
            time.sleep(0.1)
        yield environment


def free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(n)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def start(daemons: ExitStack, *command: str) -> None:
    """Start a daemon that is ended with the others, the last one first."""
    daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    daemons.callback(daemon.wait)
    daemons.callback(daemon.terminate)


def wait_for_file(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.02)


def ask(environment: dict[str, str], *command: str) -> str:
    """What a command of Slurm prints; nothing where it fails, as it does while daemons are starting."""
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30).stdout
