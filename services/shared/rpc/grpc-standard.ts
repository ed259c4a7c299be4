import { type DescFile, type DescService, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import type { Server } from "@grpc/grpc-js";
import { ReflectionService } from "@grpc/reflection";
import { HealthImplementation } from "grpc-health-check";

/** The standard services that tools and orchestrators expect of a gRPC server. They need no key and say no secret. */

export type Health = {
  /** Tells whoever asks or watches to go elsewhere. */
  stop(): void;
};

export function addHealth(server: Server, served: readonly DescService[]): Health {
  const names = ["", ...served.map((desc) => desc.typeName)];
  const health = new HealthImplementation(Object.fromEntries(names.map((name) => [name, "SERVING"])));
  health.addToServer(server);
  return {
    stop: () => {
      for (const name of names) health.setStatus(name, "NOT_SERVING");
    },
  };
}

/** Server reflection, v1 and v1alpha: grpcurl and its like work without our proto files. */
export function addReflection(server: Server, served: readonly DescService[]): void {
  const files = new Map<string, Buffer>();
  for (const desc of served) collect(desc.file, files);
  // All that the package reads of a definition is its files; an enum's has no other members that it must have.
  const format = "Protocol Buffer 3 EnumDescriptorProto" as const;
  const definition = { contract: { format, type: {}, fileDescriptorProtos: [...files.values()] } };
  new ReflectionService(definition, { services: served.map((desc) => desc.typeName) }).addToServer(server);
}

function collect(file: DescFile, files: Map<string, Buffer>): void {
  if (files.has(file.proto.name)) return;
  files.set(file.proto.name, Buffer.from(toBinary(FileDescriptorProtoSchema, file.proto)));
  for (const dependency of file.dependencies) collect(dependency, files);
}
