"""`fsmis cluster`: a folder segmented by the machines of a Ray cluster."""

import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

import torch
from fire.parser import DefaultParseValue

import fsmis_components
from fsmis_components.bundle import folder_evaluator, parsed_config
from fsmis_components.cluster import UNFINISHED, ClusterEvaluator, ScanJob, ScanWorker, Workers
from fsmis_components.commands.front_door import METHOD, check_there, print_outcome
from fsmis_components.data.errors import DataError, errors_of_commands, needed
from fsmis_components.data.shipped_bundles import bundle_folder
from fsmis_components.packaging import content_hash
from fsmis_components.support.support_pack import SupportPack

_MEMORY = 2 * 2**30  # bytes that a worker is counted with
_PATIENCE = 10.0  # seconds for an address to answer
_OF_DRIVER = ("save_support_pack", "corrections_dir")  # knobs of which workers know nothing
_PATHS = ("features_dir", "weights", "default_pack")  # knobs that are paths, for workers too


def cluster(
    scans: Path,
    labelled: Path,
    output: Path = Path("masks"),
    method: str = METHOD,
    address: str | None = None,
    workers: int | None = None,
    cpus_per_worker: int = 1,
    gpus_per_worker: float | None = None,
    **knobs: str,
) -> None:
    """Segment a folder as fsmis segment does, by the machines of a Ray cluster.

    All machines see scans and output under the same paths. Workers that die are replaced; given
    again, the same command goes on.

    Args:
        scans: folder of scans, or a file that lists one path per line.
        labelled: folder of labelled scans, or a stored pack.
        output: receives a mask per scan, pictures, cases.csv and report.html.
        method: ssl_alpnet, cow, ipsnet, or the folder of a bundle.
        address: of the cluster, as auto or 10.0.0.1:6379; without: one that this machine belongs
            to, else its own cores.
        workers: processes that segment, one scan at a time; without: as many as there is room for.
        cpus_per_worker: cores of a worker.
        gpus_per_worker: GPUs of a worker; without: 1 where the cluster has GPUs, else 0.
        knobs: any knob of the bundle's inference.json, as --uncertainty True.
    """
    ray = needed("ray", "ray is not installed here; pip install '.[cluster]' on each machine.")
    if (workers is not None and workers < 1) or cpus_per_worker < 1:
        raise DataError("--workers, --cpus_per_worker: expected at least 1.")
    check_there(scans, labelled)
    given = {name: DefaultParseValue(value) for name, value in knobs.items()}
    # as many threads here as in a worker: the support is made here
    torch.set_num_threads(cpus_per_worker)
    source = "support_pack" if labelled.is_file() else "support_dir"
    places = {"dataset_dir": scans, "output_dir": output, source: labelled}
    whole = {name: str(path.absolute()) for name, path in places.items()}
    parser = parsed_config(bundle_folder(method), "inference", given | whole)
    parser["evaluator#_target_"] = f"{ClusterEvaluator.__module__}.{ClusterEvaluator.__name__}"
    evaluator: Any = folder_evaluator(parser)
    _join(ray, address)
    started = time.time()
    try:
        options, room = _room(ray, cpus_per_worker, gpus_per_worker)
        actor = ray.remote(ScanWorker).options(**options, scheduling_strategy="SPREAD")

        def start(pack: SupportPack) -> Workers:
            job = ray.put(_job(method, given, pack, output.absolute(), cpus_per_worker))
            return Workers(ray, lambda: actor.remote(job), workers or room)

        evaluator.start_workers = start
        with errors_of_commands():
            evaluator.run()
    finally:
        ray.shutdown()
        print_outcome(output, started)


def _join(ray: Any, address: str | None) -> None:
    """Become the driver of a cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about a run leaves the place
    host, _, port = (address or "").rpartition(":")
    try:
        if port.isdecimal():  # Ray itself would wait for minutes
            socket.create_connection((host, int(port)), _PATIENCE).close()
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"--address {address}: no Ray cluster can be joined there ({error}); start one by "
            "ray start --head, or leave the option out."
        ) from error


def _room(ray: Any, cpus: int, gpus: float | None) -> tuple[dict[str, Any], int]:
    """What a worker asks of its machine, and how many workers the cluster has room for."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if gpus is None:
        gpus = float(any(machine.get("GPU") for machine in machines))
    asked = {"CPU": cpus, "memory": _MEMORY} | ({"GPU": gpus} if gpus else {})
    rooms = (min(m.get(name, 0) // amount for name, amount in asked.items()) for m in machines)
    room = sum(map(int, rooms))
    if not room:
        raise DataError(
            f"no machine of the cluster has {cpus} cores, {gpus:g} GPUs and "
            f"{_MEMORY / 2**30:g} GB of memory for a worker; see ray status, and ask for less by "
            "--cpus_per_worker and --gpus_per_worker."
        )
    return {"num_cpus": cpus, "num_gpus": gpus, "memory": _MEMORY}, room


def _job(
    method: str, knobs: dict[str, Any], pack: SupportPack, output: Path, threads: int
) -> ScanJob:
    here = Path(method)
    own = {name: value for name, value in knobs.items() if name not in _OF_DRIVER}
    for name in _PATHS:
        if own.get(name) not in (None, "shipped", "none"):
            own[name] = str(Path(own[name]).absolute())
    return ScanJob(
        bundle=str(here.absolute()) if here.is_dir() else method,
        knobs={**own, "stored_support": None},
        support=pack.save(output / UNFINISHED / "support_pack.safetensors"),
        output_dir=output,
        threads=threads,
        package=content_hash(Path(fsmis_components.__file__).parent),
    )
