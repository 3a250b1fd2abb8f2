"""`pit-keras serve`: try a model in a browser and over HTTP."""

import argparse

from pit_keras.commands.arguments import check_inputs, is_tflite, load_model, positive


def add_arguments(command):
    argument = command.add_argument
    argument(
        "--model", required=True, help="a run folder, a .keras file or an exported .tflite file"
    )
    argument("--classes", metavar="FILE", help="class names, one a line (default: the model's own)")
    argument(
        "--host",
        default="127.0.0.1",
        help="address to serve at (default 127.0.0.1: for this machine alone; 0.0.0.0: for all)",
    )
    argument("--port", type=_port, default=8501, help="default 8501; 0: any free one")
    argument("--name", help="the model's name in addresses (default: that of its folder or file)")
    for option, default, help_ in (
        ("--max_batch", 8, "images that the model sees at once"),
        ("--max_queue", 32, "images in the server; more are refused with 503"),
        ("--max_request_mb", 16, "size of a request"),
        ("--max_pixels", 50_000_000, "height times width of an image"),
        ("--timeout", 30, "seconds that a client has to send a request"),
    ):
        argument(option, type=positive, default=default, help=f"{help_} (default {default})")


def _port(text):
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 65535; got {text!r}")
    return int(text)


def run(options):
    """Serves a model over HTTP until it is interrupted."""
    check_inputs(options, takes_tflite=True)
    try:
        from pit_keras.serving import server
    except ModuleNotFoundError as error:
        raise ImportError(
            f"serve needs the package {error.name}: pip install pit_keras[serve]."
        ) from error
    from pit_keras.serving.limits import Limits

    name = server.model_name(options.model, options.name)
    limits = Limits(
        max_batch=options.max_batch,
        max_queue=options.max_queue,
        max_request_bytes=1_000_000 * options.max_request_mb,
        max_pixels=options.max_pixels,
        timeout=options.timeout,
    )
    with server.bind(options.host, options.port) as listener:
        from pit_keras.serving.served_networks import KerasNetwork, TFLiteNetwork

        network = TFLiteNetwork if is_tflite(options.model) else KerasNetwork
        classifier = load_model(options, takes_tflite=True, takes_detectors=False)
        server.run(network(classifier), name, listener, limits)
