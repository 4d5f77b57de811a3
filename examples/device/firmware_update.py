"""Download the firmware that the platform has assigned, verify it, and install it.

Set TB_HOST to the platform and TB_ACCESS_TOKEN to the access token of the device. The image is saved in the current
folder.
"""

from pathlib import Path

from tb_mqtt_client import DeviceClient, DeviceConfig, run
from tb_mqtt_client.entities.data.assigned_package import AssignedPackage


def progress(received: int, size: int) -> None:
    print(f"{received:,} of {size:,} bytes")


async def install(package: AssignedPackage, image: Path | None) -> None:
    """Install an image that is complete and verified. An exception raised here makes the update FAILED."""
    if image is None:
        raise RuntimeError(f"The package is stored elsewhere, download it from {package.url}")
    print(f"installing {package.title} {package.version} from {image.name}")


async def main() -> None:
    async with DeviceClient(DeviceConfig()) as client:
        # The installed firmware, which is reported to the platform and not downloaded again.
        client.firmware_updater.current_firmware_info |= {"current_fw_title": "thermometer", "current_fw_version": "1.0"}

        update = await client.update_firmware(on_package=install, on_progress=progress)
        result = await update
        print(f"{result.state.value}: {result.error or result.package or 'nothing to do'}")


if __name__ == "__main__":
    run(main())
