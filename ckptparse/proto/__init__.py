"""The messages of TensorFlow's files: bindings that are generated from protos/ckptparse/proto.

Nothing is imported here: a caller imports the modules it needs (`from ckptparse.proto import
tensor_bundle_pb2`), and parses through `ckptparse.proto.parsing`. The package name is our own:
the wire does not carry it, and a process has only one pool of descriptors, which TensorFlow's
own `tensorflow.*` messages may already be in.
"""
