"""Every defect in docs/defects.md has a test, or a line in docs/differences.md that says why it has none. Every mistake in
docs/platform_contract.md, section 9, has a test.
"""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"
DEFECTS = [int(number) for number in re.findall(r"^\| (\d+) \|", (DOCS / "defects.md").read_text(), re.MULTILINE)]
NAMES = re.findall(
    r"^\s*(?:async )?def (test_\w+)\(", "\n".join(path.read_text() for path in TESTS.rglob("test_*.py")), re.MULTILINE
)
EXPLAINED = {int(number) for number in re.findall(r"\(defect (\d+)\)", (DOCS / "differences.md").read_text())}

MISTAKES = {
    "requests of a gateway without keys": "an_attribute_request_without_keys_is_refused",
    "requests of two scopes in one message": "an_attribute_request_has_one_scope_a_message",
    "no announcements and subscriptions after a reconnect": "a_reconnect_restores_devices_and_subscriptions",
    "telemetry that overtakes its connect": "telemetry_waits_for_the_announcement",
    "waiting forever for limits": "connect_returns_although_the_server_announces_no_limits",
    "refusals that the caller does not see": "permanent_refusals_of_a_connection_raise",
    "sending again on a live connection": "nothing_is_resent_on_a_live_connection",
    "oversized service messages": "an_oversized_request_is_refused_at_the_call",
    "oversized responses": "an_oversized_response_becomes_an_error",
    "empty telemetry": "refused_timeseries",
    "packages at a URL": "ota_a_package_with_a_url_is_passed_to_the_callback",
    "packages that are not found": "ota_not_found",
    "chunks that are missing": "ota_a_missing_chunk_is_requested_again",
    "limits of 1": "windows_are_at_least_one",
    "deletions taken for values": "deletions_are_told_apart",
    "checksums without leading zeros": "leading_zeros_are_written",
    "control messages charged to the device": "control_messages_count_against_the_limits_of_the_gateway",
    "tokens taken twice or from the wrong limit": "tokens_are_taken_once_from_the_right_limits",
    "buckets that a reconnect fills": "what_was_spent_stays_spent",
    "wrong names of reason codes": "names_of_the_specification",
    "errors of RPC as success": "result_error_and_timeout_are_three_outcomes",
    "NOT_FOUND as FAILURE": "provisioning_not_found_and_failure_are_told_apart",
    "the reply's credentials type": "provisioning_the_credentials_type_of_the_reply_counts",
    "empty lists of keys": "an_empty_list_asks_for_nothing",
    "requests without a timeout": "an_attribute_request_without_a_response_ends",
    "claims in the wrong unit, empty secrets": "claim_duration_in_seconds_and_empty_secret",
    "notices of a disconnect": "notice_of_a_disconnect",
    "notices of a rename": "notice_of_a_rename",
    "notices of a deletion": "notice_of_a_deletion",
    "errors of software packages": "ota_errors_of_software_arrive_on_the_firmware_topic",
    "QoS 0 on gateway topics": "gateway_topics_have_qos_1",
    "NaN": "nan_and_other_refused_entries",
    "integers over 64 bits": "integers_of_any_size",
}


def numbers_of(name):
    found = re.match(r"test_defect_(\d+)(?:_and_(\d+))?_", name)
    return {int(number) for number in found.groups() if number} if found else set()


def test_numbers_are_read_from_names_of_tests():
    assert numbers_of("test_defect_09_and_11_a_timeout") == {9, 11}
    assert numbers_of("test_a_defect_1_x") == set()


def test_the_numbers_are_consecutive():
    """Numbers do not change: tests and pages cite them."""
    assert list(range(1, 72)) == DEFECTS


def test_tests_name_existing_defects():
    assert set().union(*map(numbers_of, NAMES)) <= set(DEFECTS)


@pytest.mark.parametrize("number", DEFECTS)
def test_each_defect_has_a_test_or_a_reason(number):
    tested = number in set().union(*map(numbers_of, NAMES))
    assert tested != (number in EXPLAINED), "a defect has either a test or a reason"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_has_a_test(mistake):
    pattern = re.compile(rf"test_(?:\w+_)?contract_9_{MISTAKES[mistake]}$")
    assert any(pattern.match(name) for name in NAMES)
