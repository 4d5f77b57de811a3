"""Fetch the firmware that the platform has assigned, check it, and install it.

TB_HOST and TB_ACCESS_TOKEN say which platform and which device. The image is kept in the current folder.
"""

from pathlib import Path

from tb_mqtt_client import DeviceClient, DeviceConfig, run
from tb_mqtt_client.entities.data.assigned_package import AssignedPackage


def progress(received: int, size: int) -> None:
    print(f"{received:,} of {size:,} bytes")


async def install(package: AssignedPackage, image: Path | None) -> None:
    """The image is whole and its checksum is right. What is raised here makes the update FAILED."""
    if image is None:
        raise RuntimeError(f"The package is kept elsewhere, fetch it from {package.url}")
    print(f"installing {package.title} {package.version} from {image.name}")


async def main() -> None:
    async with DeviceClient(DeviceConfig()) as client:
        # What the device has now; the platform is told, and does not send the same again.
        client.firmware_updater.current_firmware_info |= {"current_fw_title": "thermometer", "current_fw_version": "1.0"}

        update = await client.update_firmware(on_package=install, on_progress=progress)
        result = await update
        print(f"{result.state.value}: {result.error or result.package or 'nothing to do'}")


if __name__ == "__main__":
    run(main())
