"""Which devices train together: one, all of a machine, or those of several machines."""

import contextlib
import json
import os
import threading

import numpy as np
import tensorflow as tf

_CHUNK = 16 * 2**20  # integers sent at once, 64 MiB
_WAIT_MINUTES = 10.0
_ERRORS_OF_THE_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class WorkerLostError(RuntimeError):
    """Another worker has ended or cannot be reached."""


class Workers:
    """The processes of a training and how they communicate. One process is one worker.

    All workers must call the methods that concern the others, in the same order. `index` is this
    worker's number among `count`; `replicas` is the number of devices of all workers.
    """

    def __init__(self, strategy):
        self.strategy = strategy
        cluster = strategy.cluster_resolver
        spec = cluster.cluster_spec().as_dict() if cluster else {}
        self.count = sum(map(len, spec.values())) or 1
        is_plain_worker = bool(spec) and cluster.task_type == "worker"
        self.index = cluster.task_id + len(spec.get("chief", ())) * is_plain_worker if spec else 0
        self.replicas = strategy.num_replicas_in_sync
        self._send = tf.function(
            self._summed, input_signature=[tf.TensorSpec([None], tf.int32, name="values")]
        )

    @property
    def is_chief(self):
        """Whether this worker is the one that writes files."""
        return self.index == 0

    def check_batch(self, batch_size):
        """Raises a ValueError if the replicas do not divide a batch."""
        replicas = self.replicas
        if batch_size % replicas:
            near = max(1, round(batch_size / replicas)) * replicas
            raise ValueError(
                f"{replicas} replicas do not divide a batch of {batch_size}; use {near}."
            )

    def batches(self, make_batches):
        """This worker's part of the batches, on its devices.

        Args:
            make_batches: A function of the keywords `replicas`, `worker` and `workers` that returns
                a `tf.data.Dataset` of one replica's batches, see `pit_keras.data.pipeline`.
        """

        def of_worker(_):
            return make_batches(replicas=self.replicas, worker=self.index, workers=self.count)

        if self.replicas == 1 and not tf.config.list_logical_devices("GPU"):
            return of_worker(None)  # which starts faster: nothing is to be copied to a device
        return self.strategy.distribute_datasets_from_function(of_worker)

    def broadcast(self, payload, sender=0):
        """The sender's bytes, on every worker; the others' payload is ignored."""
        if self.count == 1:
            return payload
        is_mine = self.index == sender
        padding = -len(payload) % 4 if is_mine else 0
        words = np.frombuffer(payload + b"\0" * padding if is_mine else b"", np.int32)
        length, padding = map(int, self._send(np.int32([len(words), padding])))
        if not is_mine:
            words = np.zeros(length, np.int32)
        parts = [self._send(words[start : start + _CHUNK]) for start in range(0, length, _CHUNK)]
        content = b"".join(part.numpy().tobytes() for part in parts)
        return content[: len(content) - padding]

    def agree(self, value):
        """The chief's value on every worker: anything that JSON can hold."""
        return json.loads(self.broadcast(json.dumps(value).encode()))

    def gather(self, value):
        """Every worker's value, in their order, on every worker: anything that JSON can hold."""
        payload = json.dumps(value).encode()
        return [json.loads(self.broadcast(payload, sender)) for sender in range(self.count)]

    @contextlib.contextmanager
    def must_live(self):
        """A context in which TensorFlow's error for a lost worker becomes a `WorkerLostError`."""
        try:
            yield
        except _ERRORS_OF_THE_LOST as error:
            if self.count == 1:
                raise
            raise WorkerLostError(
                "Another worker has ended or cannot be reached. Fix its error, if it reported one, "
                f"and start all workers again to resume ({_reason(error)})."
            ) from error

    def _summed(self, values):
        local_replicas = self.replicas // self.count

        def mine(values):
            # Each of the worker's devices would count them once more.
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            return tf.where(number % local_replicas == 0, values, tf.zeros_like(values))

        each = self.strategy.run(mine, args=(values,))
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, each, axis=None)


def join_workers(distribute="none", addresses=None, index=None):
    """Makes the `Workers` of a training, and waits for the others.

    Call it before TensorFlow computes anything.

    Args:
        distribute: "none" for one device, "mirrored" for all devices of this machine,
            "multi_worker" for those of several processes.
        addresses: For "multi_worker": `host:port` of every worker, the same list on each; None for
            those of the environment variable TF_CONFIG.
        index: This worker's number in that list.
    """
    if distribute != "multi_worker":
        if addresses is not None or index is not None:
            raise ValueError("--workers and --worker are for --distribute=multi_worker only.")
        if distribute == "mirrored":
            return Workers(tf.distribute.MirroredStrategy())
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        return Workers(tf.distribute.OneDeviceStrategy(f"{kind}:0"))
    jobs, kind, index = _cluster(addresses, index)
    with _waiting_for(jobs, kind, index):
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(jobs), task_type=kind, task_id=index, rpc_layer="grpc"
        )
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
        except tf.errors.OpError as error:
            raise OSError(
                f"This worker cannot listen at {jobs[kind][index]}: the port is in use, or the "
                f"address is another machine's ({_reason(error)})."
            ) from error
    return Workers(strategy)


def _cluster(addresses, index):
    """The addresses by job, {"worker": [...]}, and this worker's job and number in it."""
    stored = os.environ.get("TF_CONFIG")
    if addresses is None and index is None:
        if not stored:
            raise ValueError(
                "--distribute=multi_worker needs --workers=HOST:PORT,HOST:PORT and --worker=NUMBER "
                "or the environment variable TF_CONFIG."
            )
        return _read_tf_config(stored)
    if stored:
        raise ValueError("--workers and TF_CONFIG are both given; unset one.")
    if not addresses or index is None:
        raise ValueError("--workers=HOST:PORT,HOST:PORT and --worker=NUMBER must both be given.")
    _check_addresses(addresses)
    if not 0 <= index < len(addresses):
        raise ValueError(f"--worker must be 0 to {len(addresses) - 1}, got {index}.")
    return {"worker": list(addresses)}, "worker", index


def _check_addresses(addresses):
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(f"A worker's address must be HOST:PORT; got {address!r}.")
    if len(set(addresses)) < len(addresses):
        raise ValueError(f"The workers must have different addresses; got {', '.join(addresses)}.")


def _read_tf_config(text):
    form = '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        jobs = {job: list(cluster[job]) for job in ("chief", "worker") if job in cluster}
        kind, index = task["type"], int(task["index"])
        _check_addresses([address for addresses in jobs.values() for address in addresses])
        jobs[kind][index]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        reason = f" ({error})" if isinstance(error, ValueError) else ""
        raise ValueError(f"TF_CONFIG must be JSON of the form {form}; got {text}{reason}") from None
    return jobs, kind, index


@contextlib.contextmanager
def _waiting_for(jobs, kind, index):
    """Ends the process if the other workers do not come: TensorFlow would wait for ever."""
    others = ", ".join(
        address
        for job, addresses in jobs.items()
        for number, address in enumerate(addresses)
        if (job, number) != (kind, index)
    )
    print(f"Waiting for the workers at {others}." if others else "The only worker.", flush=True)

    def give_up():
        print(
            f"error: {others} did not come in {_WAIT_MINUTES:.0f} minutes; start all.", flush=True
        )
        os._exit(1)  # TensorFlow waits in its own code, where no exception reaches it

    timer = threading.Timer(60 * _WAIT_MINUTES, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _reason(error):
    lines = [line.strip() for line in str(error.message).splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Collective ops is aborted by")]
    return (causes or lines or ["no reason given"])[0]
