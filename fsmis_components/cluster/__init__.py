"""A folder of scans segmented on a cluster: what its machines do, and who gives it to them."""

from fsmis_components.cluster.cluster_evaluator import ClusterEvaluator
from fsmis_components.cluster.ray_workers import Workers
from fsmis_components.cluster.scan_worker import FinishedScan, ScanJob, ScanWorker

__all__ = ["ClusterEvaluator", "FinishedScan", "ScanJob", "ScanWorker", "Workers"]
