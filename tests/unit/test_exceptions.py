"""Errors keep their text and attributes when they are copied or pickled."""

import copy
import pickle

import pytest

import tb_mqtt_client
from tb_mqtt_client.common import exceptions
from tb_mqtt_client.common.exceptions import (
    BackpressureException,
    ConnectionLostError,
    ConnectionRefusedByServer,
    DeviceNotConnectedError,
    NoDeviceSessionError,
    NotConnectedError,
    ProxyRefusedError,
    RequestRefusedError,
    SubscriptionRefusedError,
    TBMQTTError,
)
from tb_mqtt_client.constants.reason_codes import ReasonCode

ERRORS = [
    NotConnectedError("text"),
    ConnectionLostError("text"),
    ConnectionRefusedByServer(ReasonCode.NOT_AUTHORIZED, 5),
    ProxyRefusedError("text", 407),
    SubscriptionRefusedError("v1/devices/me/attributes", ReasonCode.NOT_AUTHORIZED),
    RequestRefusedError("v1/devices/me/rpc/request/1", ReasonCode.TOPIC_NAME_INVALID),
    NoDeviceSessionError("text"),
    DeviceNotConnectedError("text"),
    BackpressureException(),
    BackpressureException("text"),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_copy_has_the_text_and_attributes_of_the_error(error, copied):
    twin = copied(error)
    assert type(twin) is type(error)
    assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))


def test_errors_of_clients_can_be_imported_from_the_package():
    errors = {name for name, kind in vars(exceptions).items() if isinstance(kind, type) and issubclass(kind, TBMQTTError)}
    assert errors <= set(tb_mqtt_client.__all__)


def test_a_pickled_error_keeps_its_notes():
    error = RequestRefusedError("topic", ReasonCode.NOT_AUTHORIZED)
    error.add_note("while the pump started")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["while the pump started"]
