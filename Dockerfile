# The whole experiment in one image: `docker run` with no arguments runs the embedded space.
#
#   docker build -t lfreeze --build-arg COMMIT=$(git describe --always --abbrev=40 --dirty) .
#   docker build -t lfreeze:cpu --build-arg VARIANT=cpu --build-arg BASE_IMAGE=debian:bookworm-slim .
#
# torch's wheels bring CUDA's libraries with them, so the base is NVIDIA's smallest image: what it adds
# is the contract with the container runtime that mounts the host's driver. Any base with apt and
# Python 3.11 or newer will do.
#
# wget is what KubeRay's health probes call.
ARG BASE_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04@sha256:2ab6381d970b211fb93853796dc6707eb8a72575a375c422b17cf4d8b2641701

FROM ${BASE_IMAGE} AS python
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates python3 tini wget \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log

FROM python AS packages
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv
RUN python3 -m venv /opt/venv && python3 -m venv /opt/build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
COPY requirements/*.txt /requirements/
# cuda, or cpu: torch's CPU build, from the index that the secret `pip` (a pip.conf) or PIP_EXTRA_INDEX_URL names.
ARG VARIANT=cuda
ARG PIP_EXTRA_INDEX_URL
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/venv/bin/pip install --no-deps --require-hashes \
      -r /requirements/base.txt -r "/requirements/${VARIANT}.txt" \
 && /opt/venv/bin/pip check
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/build/bin/pip install --no-deps --require-hashes -r /requirements/build.txt

FROM packages AS wheel
ARG COMMIT=
COPY pyproject.toml hatch_build.py README.md LICENSE /source/
COPY lfreeze /source/lfreeze
COPY reproduce /source/reproduce
COPY search_spaces /source/search_spaces
COPY artifacts/reference/embedded /source/artifacts/reference/embedded
COPY artifacts/reference/embedded-full /source/artifacts/reference/embedded-full
COPY artifacts/reference/paper_claims.toml /source/artifacts/reference/paper_claims.toml
RUN LFREEZE_COMMIT="${COMMIT}" /opt/build/bin/pip wheel --no-deps --no-build-isolation -w /wheel /source \
 && /opt/venv/bin/pip install --no-deps --no-index --prefix=/app --ignore-installed /wheel/*.whl

# The bill of materials: what is installed, with licences and dependencies, valid against CycloneDX's schema.
FROM packages AS materials
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /opt/tools \
 && /opt/tools/bin/pip install --no-deps --require-hashes -r /requirements/tools.txt
COPY --from=wheel /app /opt/venv
RUN /opt/tools/bin/cyclonedx-py environment --output-reproducible --output-file /lfreeze.cdx.json /opt/venv/bin/python

FROM python AS runtime
COPY --from=materials /lfreeze.cdx.json /usr/share/doc/lfreeze/
COPY --from=packages /opt/venv /opt/venv
# Apart, so that a change of the project moves megabytes and not gigabytes.
COPY --from=wheel /app /opt/venv
# A volume that is new takes its mode from here; a login shell, which KubeRay starts Ray in, its PATH.
RUN mkdir -m 1777 /artifacts /cache \
 && echo 'PATH=/opt/venv/bin:$PATH' > /etc/profile.d/lfreeze.sh \
 && useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin lfreeze
ARG VERSION=0.1.0
ARG COMMIT=
LABEL org.opencontainers.image.title="lfreeze" \
      org.opencontainers.image.description="Selective layer freezing for transformer fine-tuning: the experiment end to end" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
# Any user may run it: the home is /tmp, and a name is given for those without one in /etc/passwd.
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp USER=lfreeze MPLCONFIGDIR=/tmp/matplotlib \
    HF_HOME=/cache/huggingface LFREEZE_CACHE=/cache/lfreeze \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
# artifacts/<space>, a command's default, is then in the mounted folder.
WORKDIR /
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "reproduce"]
CMD ["run"]
