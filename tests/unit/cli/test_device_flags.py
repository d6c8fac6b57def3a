import pytest

from orlop.base.errors import InvalidInput
from orlop.cli.device_flags import device_limits, device_requests, is_cdi_name

NONE = dict.fromkeys(
    ("blkio-weight-device", "device-read-bps", "device-write-bps", "device-read-iops", "device-write-iops")
) | {"device": [], "gpus": ""}


def test_limits_of_devices():
    found = device_limits(
        NONE
        | {
            "blkio-weight-device": ["/dev/vda:300"],
            "device-read-bps": ["/dev/vda:1mb"],
            "device-write-iops": ["/dev/vda:50"],
        }
    )

    assert found == {
        "BlkioWeightDevice": [{"Path": "/dev/vda", "Weight": 300}],
        "BlkioDeviceReadBps": [{"Path": "/dev/vda", "Rate": 1 << 20}],
        "BlkioDeviceWriteIOps": [{"Path": "/dev/vda", "Rate": 50}],
    }


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("device-read-bps", "/dev/vda"),
        ("device-read-bps", "vda:1mb"),
        ("device-read-bps", "/dev/vda:"),
        ("device-read-iops", "/dev/vda:1mb"),
        ("blkio-weight-device", "/dev/vda:5"),
        ("blkio-weight-device", "/dev/vda:x"),
    ],
)
def test_wrong_limits_are_refused(flag, text):
    with pytest.raises(InvalidInput):
        device_limits(NONE | {flag: [text]})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", {"Count": -1}),
        ("2", {"Count": 2}),
        ('"device=0,1"', {"DeviceIDs": ["0", "1"], "Count": 0}),
        ("driver=nvidia,count=1", {"Driver": "nvidia", "Count": 1}),
        ('all,"capabilities=utility,gpu"', {"Count": -1, "Capabilities": [["gpu", "utility"]]}),
    ],
)
def test_gpus(text, expected):
    (request,) = device_requests(NONE | {"gpus": text})

    assert request.items() >= expected.items()


def test_cdi_names_among_devices():
    assert device_requests(NONE | {"device": ["/dev/null", "v.com/gpu=0"]}) == [
        {"Driver": "cdi", "DeviceIDs": ["v.com/gpu=0"]}
    ]
    assert not is_cdi_name("/dev/a:/dev/b")
