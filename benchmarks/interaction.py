"""What measuring the spatial interaction costs, beside a plain forward pass.

    pip install -e .[train]
    python benchmarks/interaction.py

Both run in turn in one process, compiled by `tf.function`. The CSV has median times, and the
analysis over the plain pass: lower is better.
"""

from command import new_model, parse, write_rows


def main(arguments=None):
    options = parse(
        __doc__,
        arguments,
        small={"image_size": 32, "models": ("pit_s",), "batch_sizes": (1,), "repeats": 1},
        models=("pit_s", "vit_s"),
        image_size=224,
        batch_sizes=(1, 16),
        repeats=15,
        output="results/interaction.csv",
    )
    rows = []
    for name in options.models:
        model = new_model(name, options)
        for batch in options.batch_sizes:
            rows.append({"model": name, "batch": batch, **compared(model, batch, options.repeats)})
    write_rows(rows, options.output)


def compared(model, batch, repeats):
    import tensorflow as tf

    from pit_keras.explain.interaction import interaction_model
    from pit_keras.measure.measuring import medians_in_turn

    images = tf.random.stateless_normal((batch, *model.input_shape[1:]), seed=(0, 0))

    def call_of(network):
        function = tf.function(lambda x: network(x, training=False))
        return lambda: function(images).numpy()

    calls = call_of(model), call_of(interaction_model(model))
    plain, analysis = medians_in_turn(calls, repeats)
    return {
        "plain_ms": round(1000 * plain, 1),
        "analysis_ms": round(1000 * analysis, 1),
        "ratio": round(analysis / plain, 2),
    }


if __name__ == "__main__":
    main()
