"""Who trains together: one device, all devices of a machine, or the devices of several machines."""

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
    """The processes of a training and what they say to each other. One process is one worker.

    Every method that has to do with other workers must be called by all of them, in the same order.

    Args:
        strategy: A `tf.distribute.Strategy`.

    Attributes:
        strategy: As given.
        index: This worker's number; the first, 0, is the chief, the only one that writes files.
        count: Number of workers.
        replicas: Number of devices that the model is trained on, over all workers.
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
        """Whether this worker writes the run folder."""
        return self.index == 0

    def check_batch(self, batch_size):
        """Checks that the replicas divide a batch.

        Raises:
            ValueError: If not; it names the nearest that they divide.
        """
        if batch_size % self.replicas:
            nearest = max(1, round(batch_size / self.replicas)) * self.replicas
            raise ValueError(
                f"A batch of {batch_size} does not divide among {self.replicas} replicas; the "
                f"nearest that does is {nearest}."
            )

    def batches(self, make_batches):
        """This worker's part of the batches, on its devices.

        Args:
            make_batches: A function of the keywords `replicas`, `worker` and `workers` that gives
                a `tf.data.Dataset` of one replica's batches, see `pit_keras.data.pipeline`.
        """

        def of_worker(_):
            return make_batches(replicas=self.replicas, worker=self.index, workers=self.count)

        return self.strategy.distribute_datasets_from_function(of_worker)

    def broadcast(self, payload, sender=0):
        """The sender's bytes, on every worker; what the others give is ignored."""
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
        """Within it, TensorFlow's error for a worker that is gone becomes a `WorkerLostError`."""
        try:
            yield
        except _ERRORS_OF_THE_LOST as error:
            if self.count == 1:
                raise
            raise WorkerLostError(
                "Another worker has ended or cannot be reached, so this one ends too. If it told "
                "of an error, mend that first. Start all of them again to carry the run on. "
                f"({_reason(error)})"
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
    """Makes the strategy of a training; with others it waits for them.

    Workers must be joined before TensorFlow computes anything else.

    Args:
        distribute: "none" for one device, "mirrored" for all devices of this machine,
            "multi_worker" for those of several processes.
        addresses: For "multi_worker": `host:port` of every worker, the same list on each. None:
            the environment variable TF_CONFIG tells, as TensorFlow's documentation has it.
        index: This worker's number in that list.

    Raises:
        ValueError: If the addresses are missing, given twice or not of this form.
        OSError: If this worker's own address cannot be used.
    """
    if distribute != "multi_worker":
        if addresses is not None or index is not None:
            raise ValueError("--workers and --worker are for --distribute=multi_worker only.")
        if distribute == "mirrored":
            return Workers(tf.distribute.MirroredStrategy())
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        return Workers(tf.distribute.OneDeviceStrategy(f"{kind}:0"))
    cluster = _cluster(addresses, index)
    with _waiting_for(cluster):
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(cluster["cluster"]),
            task_type=cluster["task"]["type"],
            task_id=cluster["task"]["index"],
            rpc_layer="grpc",
        )
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
        except tf.errors.OpError as error:
            own = cluster["cluster"][cluster["task"]["type"]][cluster["task"]["index"]]
            raise OSError(
                f"This worker cannot be reached at {own}: the port may be in use, or the address "
                f"not this machine's ({_reason(error)})."
            ) from error
    return Workers(strategy)


def _cluster(addresses, index):
    """What TF_CONFIG says or would say: {"cluster": {"worker": [...]}, "task": {...}}."""
    stored = os.environ.get("TF_CONFIG")
    if addresses is None and index is None:
        if not stored:
            raise ValueError(
                "--distribute=multi_worker needs the workers' addresses: "
                "--workers=HOST:PORT,HOST:PORT and this one's number in the list, --worker=0, or "
                "the environment variable TF_CONFIG."
            )
        return _checked_tf_config(stored)
    if stored:
        raise ValueError("The workers are given twice, by --workers and by TF_CONFIG; unset one.")
    if not addresses or index is None:
        raise ValueError("--workers=HOST:PORT,HOST:PORT and --worker=NUMBER must both be given.")
    _check_addresses(addresses)
    if not 0 <= index < len(addresses):
        raise ValueError(
            f"--worker must be a number from 0 to {len(addresses) - 1}, for the {len(addresses)} "
            f"of --workers; got {index}."
        )
    return {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}}


def _check_addresses(addresses):
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(f"A worker's address must be HOST:PORT; got {address!r}.")
    if len(set(addresses)) < len(addresses):
        raise ValueError(f"The workers must have different addresses; got {', '.join(addresses)}.")


def _checked_tf_config(text):
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
    return {"cluster": jobs, "task": {"type": kind, "index": index}}


@contextlib.contextmanager
def _waiting_for(cluster):
    """Says for whom it waits, and ends the process if they do not come: TensorFlow never would."""
    task = cluster["task"]
    others = [
        address
        for job, addresses in cluster["cluster"].items()
        for number, address in enumerate(addresses)
        if (job, number) != (task["type"], task["index"])
    ]
    told = ", ".join(others)
    print(f"Waiting for the workers at {told}." if others else "The only worker.", flush=True)

    def give_up():
        print(
            f"error: The workers at {told} did not all come within {_WAIT_MINUTES:.0f} minutes; "
            "check the addresses, and start all workers.",
            flush=True,
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
    told = [line for line in lines if line.startswith("Collective ops is aborted by")]
    return (told or lines or ["no reason given"])[0]
