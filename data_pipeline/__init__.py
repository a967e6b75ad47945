"""Features in, episodes out; imported as `leo_tf.data_pipeline`.

Nothing here imports TensorFlow until episodes flow.
"""
