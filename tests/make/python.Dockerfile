# A Python image as registries have them, made by python.sh.

FROM scratch AS bootstrap
ADD pyrlab-debian.tar /
RUN --mount=type=bind,target=/pyrlab --mount=type=bind,from=tools,target=/tools/pyrlab \
    --mount=type=secret,id=ca,mode=0444 --mount=type=secret,id=network bash /pyrlab/python.sh

FROM scratch
COPY --from=bootstrap /slim/ /
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    PYTHON_VERSION=3.13
CMD ["python3"]
