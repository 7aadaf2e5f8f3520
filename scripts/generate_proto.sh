#!/usr/bin/env bash
# Generates src/pdcluster_proto from the .proto files. Same input, same bytes: the result is committed.
set -euo pipefail
cd "$(dirname "$0")/../proto"
out=src/pdcluster_proto/v1
rm -f "$out"/*_pb2.py "$out"/*_pb2.pyi "$out"/*_pb2_grpc.py
python -m grpc_tools.protoc -Ipdcluster_proto/v1=pdcluster/v1 -I. \
    --python_out=src --pyi_out=src --grpc_python_out=src \
    pdcluster_proto/v1/{request,inference,splitwise,admin}.proto
