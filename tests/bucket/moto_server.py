"""A folder in a bucket of moto's S3 server, which is to be installed: moto_server.py FOLDER PREFIX

Prints its address when all is there, and serves until its standard input is closed.
"""

import logging
import sys
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

folder, prefix = Path(sys.argv[1]), sys.argv[2]
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
url = "http://{}:{}".format(*server.get_host_and_port())
who = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
s3 = boto3.client("s3", endpoint_url=url, **who)
s3.create_bucket(Bucket="nmdatasets")
for path in sorted(folder.rglob("*")):
    if path.is_file():
        key = prefix + str(path.relative_to(folder))
        s3.upload_file(str(path), "nmdatasets", key, ExtraArgs={"ACL": "public-read"})
print(url, flush=True)
sys.stdin.read()
